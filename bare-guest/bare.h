/* The parts of the guest that has no operating system. */
#ifndef BARE_H
#define BARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEGMENT_BASE (SEGMENT << 4)
#define PAGE_WORDS 1024u
#define PAGES_PER_MIB 256u
#define CHECKSUM_START 0x53544153u
#define MAX_DISKS 4

/* Spreads a number over all bits. */
static inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

/* Marsaglia's xorshift; 0 would stay 0. */
static inline uint32_t next_word(uint32_t x) {
  x ^= x << 13;
  x ^= x >> 17;
  return x ^ (x << 5);
}

static inline uint32_t checksum_word(uint32_t sum, uint32_t word) {
  return (((sum << 5) | (sum >> 27)) ^ word) * 0x9e3779b1u;
}

/* console.c: the serial line. */
void console_start(void);
/* Knows %u, %x (eight digits), %s and %c. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A whole line that came, without its end, or NULL; waits for the rest of one that has begun. */
char *read_line(void);

/* disks.c: the counter in memory and on every disk; the functions return NULL, or what went wrong. */
void disks_start(void);
void disks_count(bool on);
void disks_round(void);
void disks_names(void);
void disks_status(void);
const char *disks_write(const char *name, uint32_t offset_mib, uint32_t mib, uint32_t seed, uint32_t *checksum);
const char *disks_read(const char *name, uint32_t offset_mib, uint32_t mib, uint32_t *checksum);

/* cache.c: whether the disks may keep what is written in their cache. */
void cache_start(void);
void cache_writes(bool on);

/* memory.c: pages of known content. */
const char *memory_fill(uint32_t seed, uint32_t mib);
const char *memory_touch(uint32_t pages, uint32_t seed);
uint32_t memory_checksum(uint32_t *errors);
uint32_t memory_errors(void);
uint32_t memory_mib(void);

#endif
