/*
 * A variable of the firmware, which UEFI keeps in its flash: written and read through efivarfs. Four bytes of attributes,
 * then the value (Linux: Documentation/filesystems/efivarfs.rst).
 */
#define _GNU_SOURCE
#include "witness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#define FOLDER "/sys/firmware/efi/efivars"
#define VARIABLE FOLDER "/Witness-5e1f1e55-ab1e-4c0d-9d5a-57a515000001"
/* kept in flash, to be had before and after the system is booted */
#define ATTRIBUTES 7

struct variable {
  uint32_t attributes;
  uint64_t value;
} __attribute__((packed));

static const char *mounted(void) {
  if (access(VARIABLE, F_OK) == 0) return NULL;
  return mount("efivarfs", FOLDER, "efivarfs", 0, NULL) == 0 || errno == EBUSY ? NULL : strerror(errno);
}

/* A variable that the kernel doesn't know is protected from being removed by accident. */
static void unprotect(void) {
  int flags = 0, fd = open(VARIABLE, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ioctl(fd, FS_IOC_SETFLAGS, &flags);
  close(fd);
}

const char *variable_write(uint64_t value) {
  const char *problem = mounted();
  if (problem) return problem;
  unprotect();
  const struct variable variable = {ATTRIBUTES, value};
  int fd = open(VARIABLE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return strerror(errno);
  if (write(fd, &variable, sizeof variable) != sizeof variable) problem = strerror(errno);
  close(fd);
  return problem;
}

const char *variable_read(uint64_t *value) {
  const char *problem = mounted();
  if (problem) return problem;
  struct variable variable;
  int fd = open(VARIABLE, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  if (read(fd, &variable, sizeof variable) != sizeof variable) problem = "it has another size";
  close(fd);
  *value = variable.value;
  return problem;
}
