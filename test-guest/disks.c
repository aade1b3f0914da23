/*
 * The counter that lives in memory and on every disk at once. Each round reads it from every disk, holds it
 * against the value that memory says was last written there, and writes the next. Were memory and a disk ever
 * not of the same instant, the two would differ.
 */
#define _GNU_SOURCE
#include "witness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_DISKS 16
#define COUNTER_OFFSET MIB
#define COUNTER_MAGIC 0x54494E5455534153ull

/* O_DIRECT wants whole aligned blocks; a block of this size suits every disk. */
struct block {
  uint64_t magic, counter, check;
  uint64_t unused[PAGE_WORDS - 3];
};

struct disk {
  char name[32];
  int fd;
  uint64_t bytes;
  bool counts;      /* writable, and large enough to hold the counter */
  uint64_t written; /* what memory says this disk holds */
};

/* Everything below changes only under the lock; a round of the counter is one hold of it. */
static struct fair_lock lock = FAIR_LOCK_INIT;
static struct disk disks[MAX_DISKS];
static size_t disk_count;
static uint64_t counter;
static bool counting;
static uint64_t mismatches, io_errors, restarts_apart;
static char first_mismatch[128] = "null";
static char first_io_error[128] = "null";
static struct block *block;

static atomic_uint interval_ms;

static uint64_t block_check(const struct block *b) { return mix(b->magic ^ mix(b->counter)); }

static void note_io_error(const struct disk *disk, const char *what) {
  if (io_errors++ == 0)
    snprintf(first_io_error, sizeof first_io_error, "\"%s: %s: %s\"", disk->name, what, strerror(errno));
}

static bool read_counter(const struct disk *disk, uint64_t *value) {
  if (pread(disk->fd, block, sizeof *block, COUNTER_OFFSET) != sizeof *block) {
    note_io_error(disk, "read");
    return false;
  }
  /* Anything but a counter block reads as 0, which is right for a fresh disk and a mismatch for any other. */
  *value = block->magic == COUNTER_MAGIC && block->check == block_check(block) ? block->counter : 0;
  return true;
}

static void write_counter(struct disk *disk, uint64_t value) {
  *block = (struct block){.magic = COUNTER_MAGIC, .counter = value};
  block->check = block_check(block);
  if (pwrite(disk->fd, block, sizeof *block, COUNTER_OFFSET) != sizeof *block)
    note_io_error(disk, "write");
  else
    disk->written = value;
}

static void compare_counter(const struct disk *disk, uint64_t on_disk) {
  if (on_disk == disk->written) return;
  if (mismatches++ > 0) return;
  snprintf(first_mismatch, sizeof first_mismatch,
           "{\"disk\":\"%s\",\"memory\":%" PRIu64 ",\"onDisk\":%" PRIu64 "}", disk->name, disk->written, on_disk);
  reply("mismatch", "%s", first_mismatch); /* told once unasked: not everybody who watches the console can ask */
}

static void count_once(void) {
  uint64_t on_disk;
  for (size_t i = 0; i < disk_count; i++)
    if (disks[i].counts && read_counter(&disks[i], &on_disk)) compare_counter(&disks[i], on_disk);
  counter++;
  for (size_t i = 0; i < disk_count; i++)
    if (disks[i].counts) write_counter(&disks[i], counter);
}

static void *count_forever(void *unused) {
  (void)unused;
  for (;;) {
    fair_lock(&lock);
    bool standing_still = !counting;
    if (!standing_still) count_once();
    fair_unlock(&lock);
    sleep_ms(standing_still ? 10 : interval_ms);
  }
  return NULL;
}

static int is_disk(const struct dirent *entry) {
  return strncmp(entry->d_name, "vd", 2) == 0 || strncmp(entry->d_name, "sd", 2) == 0;
}

static void open_disk(const char *name) {
  struct disk *disk = &disks[disk_count];
  char path[64];
  snprintf(disk->name, sizeof disk->name, "%s", name);
  snprintf(path, sizeof path, "/dev/%s", disk->name);
  disk->fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
  bool writable = disk->fd >= 0;
  if (!writable) disk->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (disk->fd < 0 || ioctl(disk->fd, BLKGETSIZE64, &disk->bytes) != 0) return;
  disk->counts = writable && disk->bytes >= COUNTER_OFFSET + sizeof(struct block);
  disk_count++;
}

/*
 * The counter goes on from what the disks hold, so that it survives a reboot. A guest that died between two
 * writes leaves them one apart; more than one says that the disks are not of the same instant.
 */
static void adopt_counter(void) {
  uint64_t least = UINT64_MAX;
  for (size_t i = 0; i < disk_count; i++) {
    if (!disks[i].counts || !read_counter(&disks[i], &disks[i].written)) continue;
    if (disks[i].written > counter) counter = disks[i].written;
    if (disks[i].written < least) least = disks[i].written;
  }
  restarts_apart = least == UINT64_MAX ? 0 : counter - least;
}

void disks_start(bool count, unsigned interval, const char *mounted) {
  struct dirent **found;
  int n = scandir("/sys/block", &found, is_disk, alphasort);
  for (int i = 0; i < n && disk_count < MAX_DISKS; i++)
    if (strcmp(found[i]->d_name, mounted) != 0) open_disk(found[i]->d_name);
  block = aligned_alloc(PAGE_BYTES, sizeof *block);
  adopt_counter();
  counting = count;
  interval_ms = interval;
  start_thread(count_forever);
}

void disks_interval(unsigned ms) { interval_ms = ms; }

/* The lock makes it true when this returns: no round is under way any more. */
void disks_count(bool on) {
  fair_lock(&lock);
  counting = on;
  fair_unlock(&lock);
}

void disks_names_json(char *out, size_t size) {
  size_t used = 0;
  out[0] = 0;
  for (size_t i = 0; i < disk_count && used < size; i++)
    used += snprintf(out + used, size - used, "%s\"%s\"", i ? "," : "", disks[i].name);
}

void disks_status_json(char *out, size_t size) {
  fair_lock(&lock);
  size_t used = snprintf(out, size, "\"counter\":%" PRIu64 ",\"counting\":%s,\"intervalMs\":%u,\"disks\":{", counter,
                         counting ? "true" : "false", interval_ms);
  for (size_t i = 0, listed = 0; i < disk_count && used < size; i++) {
    uint64_t on_disk;
    if (!disks[i].counts || !read_counter(&disks[i], &on_disk)) continue;
    compare_counter(&disks[i], on_disk);
    used += snprintf(out + used, size - used, "%s\"%s\":{\"counter\":%" PRIu64 "}", listed++ ? "," : "",
                     disks[i].name, on_disk);
  }
  if (used < size)
    snprintf(out + used, size - used,
             "},\"apartAtStart\":%" PRIu64 ",\"mismatches\":%" PRIu64 ",\"firstMismatch\":%s,\"ioErrors\":%" PRIu64
             ",\"firstIoError\":%s",
             restarts_apart, mismatches, first_mismatch, io_errors, first_io_error);
  fair_unlock(&lock);
}

static struct disk *find_range(const char *name, uint64_t offset_mib, uint64_t mib, const char **problem) {
  for (size_t i = 0; i < disk_count; i++) {
    if (strcmp(disks[i].name, name) != 0) continue;
    const uint64_t disk_mib = disks[i].bytes / MIB;
    if (mib <= disk_mib && offset_mib <= disk_mib - mib) return &disks[i];
    *problem = "the range ends beyond the end of the disk";
    return NULL;
  }
  *problem = "no such disk";
  return NULL;
}

static void add_to_checksum(uint64_t *sum, const uint64_t *words) {
  for (size_t i = 0; i < MIB / sizeof *words; i++) *sum = checksum_word(*sum, words[i]);
}

const char *disks_write(const char *name, uint64_t offset_mib, uint64_t mib, uint64_t seed, uint64_t *checksum) {
  const char *problem = NULL;
  struct disk *disk = find_range(name, offset_mib, mib, &problem);
  if (!disk) return problem;
  if (disk->counts && offset_mib * MIB <= COUNTER_OFFSET && COUNTER_OFFSET < (offset_mib + mib) * MIB)
    return "the second MiB of a disk belongs to the counter";
  uint64_t *buffer = aligned_alloc(PAGE_BYTES, MIB);
  uint64_t sum = CHECKSUM_START;
  for (uint64_t at = offset_mib; !problem && at < offset_mib + mib; at++) {
    uint64_t *end = buffer + MIB / sizeof *buffer;
    for (uint64_t *page = buffer; page < end; page += PAGE_WORDS) fill_page(page, next_random(&seed) | 1);
    add_to_checksum(&sum, buffer);
    if (pwrite(disk->fd, buffer, MIB, (off_t)(at * MIB)) != MIB) problem = strerror(errno);
  }
  if (!problem && fsync(disk->fd) != 0) problem = strerror(errno);
  free(buffer);
  *checksum = checksum_end(sum);
  return problem;
}

const char *disks_read(const char *name, uint64_t offset_mib, uint64_t mib, uint64_t *checksum) {
  const char *problem = NULL;
  struct disk *disk = find_range(name, offset_mib, mib, &problem);
  if (!disk) return problem;
  uint64_t *buffer = aligned_alloc(PAGE_BYTES, MIB);
  uint64_t sum = CHECKSUM_START;
  for (uint64_t at = offset_mib; !problem && at < offset_mib + mib; at++) {
    if (pread(disk->fd, buffer, MIB, (off_t)(at * MIB)) != MIB) problem = strerror(errno);
    add_to_checksum(&sum, buffer);
  }
  free(buffer);
  *checksum = checksum_end(sum);
  return problem;
}
