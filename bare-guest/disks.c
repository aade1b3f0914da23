/*
 * The counter, as in test-guest/disks.c: each round holds every disk against what memory says was last written to it, and
 * writes the next number. The BIOS does the transfers (int 13h, Enhanced Disk Drive Specification 1.1).
 */
#include "bare.h"

#define FIRST_DRIVE 0x80
#define SECTOR_BYTES 512u
#define SECTORS_PER_MIB 2048u
/* As much as the BIOS moves at once: each call costs as much as dozens of KiB, more so where instructions are emulated. */
#define CHUNK_SECTORS 128u
#define CHUNK_WORDS (CHUNK_SECTORS * SECTOR_BYTES / 4)
/* It fills a segment; nothing else is there. */
#define CHUNK_SEGMENT 0x3000
#define COUNTER_SECTOR SECTORS_PER_MIB
#define COUNTER_MAGIC 0x54494e55u

struct disk {
  uint32_t mib;
  uint32_t written; /* what memory says this disk holds */
};

struct counter_sector {
  uint32_t magic, counter, check;
  uint32_t unused[SECTOR_BYTES / 4 - 3];
};

static struct disk disks[MAX_DISKS];
static uint32_t disk_count, counter;
static bool standing_still;
static uint32_t mismatches, io_errors, apart_at_start;
static struct { uint32_t disk, memory, on_disk; } first_mismatch;

static struct counter_sector sector;
static volatile uint32_t __seg_gs *const chunk = 0;

enum transfer { READ = 0x42, WRITE = 0x43 };

struct __attribute__((packed)) packet {
  uint16_t size, sectors, offset, segment;
  uint32_t first_low, first_high;
};

static bool transfer(enum transfer how, uint32_t disk, struct packet packet) {
  uint32_t result = (uint32_t)how << 8;
  uint8_t failed;
  __asm__ volatile("int $0x13; setc %1; cli; cld"
                   : "+a"(result), "=q"(failed)
                   : "d"(FIRST_DRIVE + disk), "S"(&packet)
                   : "ecx", "edi", "memory", "cc");
  if (failed) io_errors++;
  return !failed;
}

static bool transfer_sector(enum transfer how, uint32_t disk) {
  return transfer(how, disk, (struct packet){16, 1, (uint16_t)(uintptr_t)&sector, SEGMENT, COUNTER_SECTOR, 0});
}

static bool transfer_chunk(enum transfer how, uint32_t disk, uint32_t first) {
  return transfer(how, disk, (struct packet){16, CHUNK_SECTORS, 0, CHUNK_SEGMENT, first, 0});
}

/* The BIOS may use that register too. */
static void reach_chunk(void) { __asm__ volatile("mov %0, %%gs" ::"r"((uint16_t)CHUNK_SEGMENT) : "memory"); }

/* 0 for one that isn't there. */
static uint32_t mib_of(uint32_t disk) {
  struct __attribute__((packed)) {
    uint16_t size, flags;
    uint32_t geometry[3], sectors_low, sectors_high;
    uint16_t sector_bytes;
  } parameters = {.size = sizeof parameters};
  uint32_t result = 0x4800;
  uint8_t failed;
  __asm__ volatile("int $0x13; setc %1; cli; cld"
                   : "+a"(result), "=q"(failed)
                   : "d"(FIRST_DRIVE + disk), "S"(&parameters)
                   : "ecx", "edi", "memory", "cc");
  return failed ? 0 : parameters.sectors_low / SECTORS_PER_MIB;
}

static uint32_t check_of(const struct counter_sector *s) { return mix(s->magic ^ mix(s->counter)); }

/* Anything but a counter reads as 0, which is right for a fresh disk and a mismatch for any other. */
static bool read_counter(uint32_t disk, uint32_t *value) {
  if (!transfer_sector(READ, disk)) return false;
  *value = sector.magic == COUNTER_MAGIC && sector.check == check_of(&sector) ? sector.counter : 0;
  return true;
}

static void write_counter(uint32_t disk, uint32_t value) {
  sector.magic = COUNTER_MAGIC;
  sector.counter = value;
  sector.check = check_of(&sector);
  if (transfer_sector(WRITE, disk)) disks[disk].written = value;
}

static uint32_t compare(uint32_t disk) {
  uint32_t on_disk = 0;
  const uint32_t memory = disks[disk].written;
  if (read_counter(disk, &on_disk) && on_disk != memory && mismatches++ == 0) {
    first_mismatch.disk = disk;
    first_mismatch.memory = memory;
    first_mismatch.on_disk = on_disk;
  }
  return on_disk;
}

void disks_round(void) {
  if (standing_still) return;
  cache_writes(true); /* it is no harm when a counter is lost, but an image without what was cached is */
  for (uint32_t disk = 0; disk < disk_count; disk++) compare(disk);
  counter++;
  for (uint32_t disk = 0; disk < disk_count; disk++) write_counter(disk, counter);
}

/* The counter goes on from what the disks hold, which are one apart if the guest died between two writes. */
void disks_start(void) {
  cache_start();
  uint32_t least = UINT32_MAX;
  for (; disk_count < MAX_DISKS && (disks[disk_count].mib = mib_of(disk_count)) > 0; disk_count++) {
    struct disk *disk = &disks[disk_count];
    if (!read_counter(disk_count, &disk->written)) continue;
    if (disk->written > counter) counter = disk->written;
    if (disk->written < least) least = disk->written;
  }
  apart_at_start = disk_count == 0 ? 0 : counter - least;
}

void disks_count(bool on) { standing_still = !on; }

static char name_of(uint32_t disk) { return (char)('a' + disk); }

void disks_names(void) {
  for (uint32_t disk = 0; disk < disk_count; disk++) print("%s\"vd%c\"", disk ? "," : "", name_of(disk));
}

void disks_status(void) {
  print("\"counter\":%u,\"counting\":%s,\"intervalMs\":330,\"disks\":{", counter, standing_still ? "false" : "true");
  for (uint32_t disk = 0; disk < disk_count; disk++)
    print("%s\"vd%c\":{\"counter\":%u}", disk ? "," : "", name_of(disk), compare(disk));
  print("},\"apartAtStart\":%u,\"mismatches\":%u,\"firstMismatch\":", apart_at_start, mismatches);
  if (mismatches == 0)
    print("null");
  else
    print("{\"disk\":\"vd%c\",\"memory\":%u,\"onDisk\":%u}", name_of(first_mismatch.disk), first_mismatch.memory,
          first_mismatch.on_disk);
  print(",\"ioErrors\":%u,\"firstIoError\":%s", io_errors, io_errors ? "\"the BIOS says so\"" : "null");
}

static const char *find(const char *name, uint32_t offset_mib, uint32_t mib, uint32_t *disk) {
  *disk = (uint32_t)(name[0] == 'v' && name[1] == 'd' && name[2] && !name[3] ? name[2] - 'a' : MAX_DISKS);
  if (*disk >= disk_count) return "no such disk";
  const uint32_t end = disks[*disk].mib;
  return mib > end || offset_mib > end - mib ? "the range ends beyond the end of the disk" : NULL;
}

const char *disks_write(const char *name, uint32_t offset_mib, uint32_t mib, uint32_t seed, uint32_t *checksum) {
  uint32_t disk, word = mix(seed) | 1, sum = CHECKSUM_START;
  const char *problem = find(name, offset_mib, mib, &disk);
  if (problem) return problem;
  if (offset_mib <= 1 && 1 < offset_mib + mib) return "the second MiB of a disk belongs to the counter";
  const uint32_t to = (offset_mib + mib) * SECTORS_PER_MIB;
  for (uint32_t at = offset_mib * SECTORS_PER_MIB; at < to; at += CHUNK_SECTORS) {
    reach_chunk();
    for (uint32_t i = 0; i < CHUNK_WORDS; i++) sum = checksum_word(sum, chunk[i] = word = next_word(word));
    cache_writes(at + CHUNK_SECTORS < to); /* the last takes all with it */
    if (!transfer_chunk(WRITE, disk, at)) return "the BIOS could not write";
  }
  *checksum = sum;
  return NULL;
}

const char *disks_read(const char *name, uint32_t offset_mib, uint32_t mib, uint32_t *checksum) {
  uint32_t disk, sum = CHECKSUM_START;
  const char *problem = find(name, offset_mib, mib, &disk);
  if (problem) return problem;
  for (uint32_t at = offset_mib * SECTORS_PER_MIB; at < (offset_mib + mib) * SECTORS_PER_MIB; at += CHUNK_SECTORS) {
    if (!transfer_chunk(READ, disk, at)) return "the BIOS could not read";
    reach_chunk();
    for (uint32_t i = 0; i < CHUNK_WORDS; i++) sum = checksum_word(sum, chunk[i]);
  }
  *checksum = sum;
  return NULL;
}
