/*
 * The witness runs inside the test guest and proves, from there, that an image holds memory and disks of one
 * instant. It is asked over the serial console (witness.c lists the commands) and has two kinds of evidence:
 *
 *   memory.c   an area whose every page must be exactly what (seed, page, version) say it is
 *   disks.c    a counter that lives in memory and on every disk at once, and may never differ between them
 *   power.c    the power button
 *   stalls.c   how long the guest could not run
 *   files.c    a file system that is always written to
 *   variable.c a variable of UEFI
 *   tpm.c      what the TPM holds
 *   agent.c    QEMU's guest agent beside it
 *   boot.c     what comes before all of it
 */
#ifndef WITNESS_H
#define WITNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define MIB (1024 * 1024)

/*
 * A mutex that is handed on in turn. A plain one may be taken again and again by the thread that just gave it
 * back: a background thread at full speed would starve the commands.
 */
struct fair_lock {
  pthread_mutex_t turn;
  pthread_mutex_t held;
};
#define FAIR_LOCK_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER}

static inline void fair_lock(struct fair_lock *lock) {
  pthread_mutex_lock(&lock->turn);
  pthread_mutex_lock(&lock->held);
  pthread_mutex_unlock(&lock->turn);
}

static inline void fair_unlock(struct fair_lock *lock) { pthread_mutex_unlock(&lock->held); }

/* Random numbers: splitmix64. Every state is a good one, so any seed will do. */
static inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

static inline uint64_t next_random(uint64_t *state) { return mix(*state += 0x9E3779B97F4A7C15ull); }

/*
 * The contents of one 4 KiB page, a function of its start value only. Xorshift: cheap also where every
 * instruction is emulated.
 */
static inline uint64_t next_word(uint64_t x) {
  x ^= x << 13;
  x ^= x >> 7;
  return x ^ (x << 17);
}

static inline void fill_page(uint64_t *page, uint64_t start) {
  for (size_t i = 0; i < PAGE_WORDS; i++) page[i] = start = next_word(start);
}

/* The one checksum of this program, over little-endian 64-bit words: CHECKSUM_START, each word, checksum_end. */
#define CHECKSUM_START 0x5354415349530001ull

static inline uint64_t checksum_word(uint64_t sum, uint64_t word) {
  return (((sum << 5) | (sum >> 59)) ^ word) * 0x9E3779B97F4A7C15ull;
}

static inline uint64_t checksum_end(uint64_t sum) { return sum ^ (sum >> 32); }

/* witness.c: one line `@name {json}`, written at once, from any thread. */
void reply(const char *name, const char *json_format, ...) __attribute__((format(printf, 2, 3)));
void print_line(const char *text);
void sleep_ms(unsigned ms);
uint64_t now_us(void);
void start_thread(void *(*body)(void *));

/* boot.c: file systems and modules. */
void boot(void);

/* memory.c: the functions return NULL, or what went wrong. */
const char *memory_fill(uint64_t seed, uint64_t mib);
uint64_t memory_checksum(uint64_t *errors);
const char *memory_touch(uint64_t pages, uint64_t seed);
void memory_dirty(uint64_t mb_per_second, bool by_touch);
uint64_t memory_area_mib(void);
uint64_t memory_errors_seen(void);
uint64_t memory_dirty_rate(void);
uint64_t memory_dirtied_mib(void);
void memory_start(void);

/* disks.c */
/* The disk that is mounted, if any, is left alone. */
void disks_start(bool counting, unsigned interval_ms, const char *mounted);
void disks_names_json(char *out, size_t size);
void disks_status_json(char *out, size_t size);
void disks_count(bool on);
void disks_interval(unsigned ms);
const char *disks_write(const char *name, uint64_t offset_mib, uint64_t mib, uint64_t seed, uint64_t *checksum);
const char *disks_read(const char *name, uint64_t offset_mib, uint64_t mib, uint64_t *checksum);

/* stalls.c */
enum watch { WATCH_OFF, WATCH_ON, WATCH_BEATS };
void stalls_start(void);
void stalls_watch(enum watch how);
void stalls_reply(void);

/* files.c */
void files_start(const char *disk);
const char *files_reply(void);

/* variable.c: the functions return NULL, or what went wrong. */
const char *variable_write(uint64_t value);
const char *variable_read(uint64_t *value);

/* tpm.c, likewise */
const char *tpm_extend(uint64_t value);
const char *tpm_store(uint64_t value);
const char *tpm_reply(void);

/* agent.c */
void agent_start(void);

/* power.c */
void power_watch_button(void);
_Noreturn void power_off(void);

#endif
