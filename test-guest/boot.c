/* What an init does first. The witness is the guest's only program: without a shell it is up half a second sooner. */
#define _GNU_SOURCE
#include "witness.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KLOG_CONSOLE_LEVEL 8

/* A module that is of no use on this machine refuses to load, and that is fine. */
static void load_module(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/modules/%s.ko", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  /* Every disk must be there when the last module has been loaded. */
  syscall(SYS_finit_module, fd, strcmp(name, "scsi_mod") == 0 ? "scan=sync" : "", 0);
  close(fd);
}

void boot(void) {
  char name[64];
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sys", "/sys", "sysfs", 0, NULL);
  mount("dev", "/dev", "devtmpfs", 0, NULL);

  FILE *order = fopen("/modules/order", "r");
  while (order && fgets(name, sizeof name, order)) {
    name[strcspn(name, "\n")] = 0;
    load_module(name);
  }
  if (order) fclose(order);

  /* The console carries the protocol: of the kernel's own messages only a panic may come between. */
  klogctl(KLOG_CONSOLE_LEVEL, NULL, 1);
}
