/*
 * How long the guest could not run, as it sees that itself: a thread before all others sleeps for a millisecond, and
 * what it sleeps beyond that is a stall.
 *
 * The guest's clocks stand still while its machine is stopped, so the pause of a save is in none of this: what is
 * seen here comes before and after it. What both together are to somebody outside is seen there: `beats` prints a
 * line at each look, for the host to hold against its own clock.
 */
#define _GNU_SOURCE
#include "witness.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 8
#define BUCKET_US 100
#define BUCKETS 10000 /* the last one is for whatever is longer than a second */

static struct fair_lock lock = FAIR_LOCK_INIT;
static enum watch watching;
static uint64_t looks;
static uint64_t longest_us[LONGEST]; /* longest first */
static uint32_t buckets[BUCKETS];

static void note_stall(uint64_t stall_us) {
  const uint64_t bucket = stall_us / BUCKET_US;
  looks++;
  buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
  for (size_t i = 0; i < LONGEST; i++) {
    if (stall_us <= longest_us[i]) continue;
    memmove(&longest_us[i + 1], &longest_us[i], (LONGEST - 1 - i) * sizeof *longest_us);
    longest_us[i] = stall_us;
    return;
  }
}

static void *watch(void *unused) {
  const struct sched_param first = {.sched_priority = 1};
  (void)unused;
  sched_setscheduler(0, SCHED_FIFO, &first); /* a busy thread beside it is no stall */
  for (;;) {
    fair_lock(&lock);
    const enum watch how = watching;
    fair_unlock(&lock);
    if (how == WATCH_OFF) {
      sleep_ms(10);
      continue;
    }
    const uint64_t before = now_us();
    sleep_ms(1);
    const uint64_t slept = now_us() - before;
    fair_lock(&lock);
    if (watching != WATCH_OFF) note_stall(slept > 1000 ? slept - 1000 : 0);
    fair_unlock(&lock);
    if (how == WATCH_BEATS) print_line("~");
  }
  return NULL;
}

void stalls_start(void) { start_thread(watch); }

void stalls_watch(enum watch how) {
  fair_lock(&lock);
  watching = how;
  fair_unlock(&lock);
}

/* The value that all but one in a hundred looks stay below or reach, to the width of a bucket. */
static uint64_t p99_us(void) {
  uint64_t seen = 0;
  size_t bucket = 0;
  while (bucket < BUCKETS - 1 && (seen += buckets[bucket]) * 100 < looks * 99) bucket++;
  return (bucket + 1) * BUCKET_US;
}

void stalls_reply(void) {
  char list[LONGEST * 24] = "";
  size_t used = 0;
  fair_lock(&lock);
  for (size_t i = 0; i < LONGEST && i < looks; i++)
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%" PRIu64, i ? "," : "", longest_us[i]);
  reply("stalls", "{\"looks\":%" PRIu64 ",\"p99Us\":%" PRIu64 ",\"longestUs\":[%s]}", looks, p99_us(), list);
  looks = 0;
  memset(longest_us, 0, sizeof longest_us);
  memset(buckets, 0, sizeof buckets);
  fair_unlock(&lock);
}
