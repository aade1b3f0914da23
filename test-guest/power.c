/* The power button: every input device is watched, for QEMU's machines put the ACPI button on different ones. */
#define _GNU_SOURCE
#include "witness.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#define MAX_INPUTS 32

static struct pollfd inputs[MAX_INPUTS];
static nfds_t input_count;

static void *watch(void *unused) {
  (void)unused;
  for (;;) {
    if (poll(inputs, input_count, -1) < 0) continue;
    for (nfds_t i = 0; i < input_count; i++) {
      struct input_event event;
      if (!(inputs[i].revents & POLLIN) || read(inputs[i].fd, &event, sizeof event) != sizeof event) continue;
      if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) power_off();
    }
  }
  return NULL;
}

void power_watch_button(void) {
  DIR *folder = opendir("/dev/input");
  struct dirent *entry;
  while (folder && input_count < MAX_INPUTS && (entry = readdir(folder))) {
    char path[300];
    if (strncmp(entry->d_name, "event", 5) != 0) continue;
    snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) inputs[input_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
  if (folder) closedir(folder);
  if (input_count > 0) start_thread(watch);
}

/* The counter stops between two rounds: after a clean power off, all disks agree. */
_Noreturn void power_off(void) {
  disks_count(false);
  reply("poweroff", "{}");
  sync();
  sleep_ms(20); /* lets the console drain */
  reboot(RB_POWER_OFF);
  for (;;) pause();
}
