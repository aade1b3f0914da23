/*
 * A file system on one of the disks, and a program that never stops writing to it: what a freeze is for. A record is
 * written and synchronized every few milliseconds; while the file system is frozen that write waits.
 */
#define _GNU_SOURCE
#include "witness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_EVERY_MS 5

static _Atomic uint64_t records, last_us, longest_us;
static const char *problem = "no disk is mounted";

static void *write_forever(void *unused) {
  (void)unused;
  int fd = open("/mnt/records", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) problem = strerror(errno);
  for (last_us = now_us(); fd >= 0; sleep_ms(RECORD_EVERY_MS)) {
    char record[64];
    const int used = snprintf(record, sizeof record, "%" PRIu64 "\n", records + 1);
    if (write(fd, record, (size_t)used) != used || fdatasync(fd) != 0) {
      problem = strerror(errno);
      break;
    }
    records++;
    const uint64_t now = now_us(), gap = now - last_us;
    if (gap > longest_us) longest_us = gap;
    last_us = now;
  }
  return NULL;
}

void files_start(const char *disk) {
  char path[64];
  snprintf(path, sizeof path, "/dev/%s", disk);
  mkdir("/mnt", 0700);
  if (mount(path, "/mnt", "ext4", 0, NULL) != 0) {
    problem = strerror(errno);
    return;
  }
  problem = NULL;
  start_thread(write_forever);
}

/* The longest time between two records is since the last time this was asked. */
const char *files_reply(void) {
  if (problem) return problem;
  reply("files", "{\"records\":%" PRIu64 ",\"idleMs\":%" PRIu64 ",\"longestMs\":%" PRIu64 "}", (uint64_t)records,
        (now_us() - last_us) / 1000, (uint64_t)atomic_exchange(&longest_us, 0) / 1000);
  return NULL;
}
