/*
 * The first program of a Debian guest, in its initramfs: loads the modules that the root file system is reached by, mounts
 * it and hands over to Debian's own init. It takes the place of Debian's initramfs, whose scripts need most of the time of
 * a boot where instructions are emulated. The root is the first virtio disk; /modules/order lists the modules.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/dev/vda"
#define TRIES 2000
#define BETWEEN_TRIES_NS (5 * 1000 * 1000)

/* The kernel panics when its init ends, and the reason stands on the console above that. */
static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void load_module(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/modules/%s.ko", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) fail(path);
  close(fd);
}

static void load_modules(void) {
  char name[64];
  FILE *order = fopen("/modules/order", "r");
  if (!order) fail("/modules/order");
  while (fscanf(order, "%63s", name) == 1) load_module(name);
  fclose(order);
}

/* The driver finds its disks in the background. */
static void await_root(void) {
  struct timespec pause = {.tv_nsec = BETWEEN_TRIES_NS};
  for (int tries = 0; access(ROOT, F_OK) != 0; tries++) {
    if (tries == TRIES) fail(ROOT);
    nanosleep(&pause, NULL);
  }
}

int main(int argc, char *argv[]) {
  (void)argc;
  if (mount("dev", "/dev", "devtmpfs", 0, NULL) != 0) fail("/dev");
  load_modules();
  await_root();
  if (mount(ROOT, "/root", "ext4", MS_RDONLY, NULL) != 0) fail(ROOT);
  if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) != 0) fail("/root/dev");
  if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) fail("/root");
  argv[0] = "/sbin/init";
  execv(argv[0], argv);
  fail(argv[0]);
}
