/* The memory area: pages whose contents are known, so that any page which is not of this instant shows. */
#define _GNU_SOURCE
#include "witness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* A zeroed page is a version of its own: images treat zero pages specially, and forget stale bytes under them. */
#define ZEROED 0x80000000u

/* The area and its versions change only under the lock. */
static struct fair_lock lock = FAIR_LOCK_INIT;
static uint64_t area_seed;
static uint64_t area_pages;
static uint64_t *area;
static uint32_t *versions;
static uint32_t *touches; /* how much was added to the first word of a page since it was last written as a whole */

static uint64_t dirty_mb_per_second;
static bool dirty_by_touch;

static atomic_uint_fast64_t errors_seen;
static atomic_uint_fast64_t pages_dirtied;

static uint64_t *page_at(uint64_t page) { return area + page * PAGE_WORDS; }

static uint64_t page_start(uint64_t page) {
  uint64_t start = mix(area_seed ^ mix(page + 1) ^ ((uint64_t)versions[page] << 32));
  return start ? start : 1; /* xorshift would stay at zero */
}

static void rewrite_page(uint64_t page, bool zero) {
  uint32_t version = (versions[page] & ~ZEROED) + 1;
  versions[page] = zero ? version | ZEROED : version;
  touches[page] = 0;
  if (zero)
    memset(page_at(page), 0, PAGE_BYTES);
  else
    fill_page(page_at(page), page_start(page));
}

/* A third of the rewritten pages is zeroed. */
static void rewrite_random_page(uint64_t *random) {
  uint64_t r = next_random(random);
  rewrite_page((r >> 8) % area_pages, (r & 0xff) < 0x100 / 3);
}

/* The cheapest way to make a page another one. */
static void touch_page(uint64_t page) {
  touches[page]++;
  page_at(page)[0]++;
}

static uint64_t available_mib(void) {
  unsigned long long kib = 0;
  char line[128];
  FILE *meminfo = fopen("/proc/meminfo", "r");
  while (meminfo && fgets(line, sizeof line, meminfo))
    if (sscanf(line, "MemAvailable: %llu", &kib) == 1) break;
  if (meminfo) fclose(meminfo);
  return kib / 1024;
}

const char *memory_fill(uint64_t seed, uint64_t mib) {
  const char *problem = NULL;
  fair_lock(&lock);
  if (area) {
    munmap(area, area_pages * PAGE_BYTES);
    munmap(versions, area_pages * sizeof *versions);
    munmap(touches, area_pages * sizeof *touches);
    area = NULL;
    area_pages = 0;
  }
  uint64_t pages = mib * (MIB / PAGE_BYTES);
  if (mib + 8 > available_mib()) {
    problem = "the guest has not that much free memory";
  } else if (pages > 0) {
    const int rw = PROT_READ | PROT_WRITE, anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    area = mmap(NULL, pages * PAGE_BYTES, rw, anonymous, -1, 0);
    versions = mmap(NULL, pages * sizeof *versions, rw, anonymous, -1, 0);
    touches = mmap(NULL, pages * sizeof *touches, rw, anonymous, -1, 0);
    if (area == MAP_FAILED || versions == MAP_FAILED || touches == MAP_FAILED) {
      area = NULL;
      problem = "mmap failed";
    } else {
      area_seed = seed;
      area_pages = pages;
      for (uint64_t page = 0; page < pages; page++) fill_page(page_at(page), page_start(page));
    }
  }
  fair_unlock(&lock);
  return problem;
}

uint64_t memory_checksum(uint64_t *errors) {
  uint64_t sum = CHECKSUM_START, wrong_pages = 0;
  fair_lock(&lock);
  for (uint64_t page = 0; page < area_pages; page++) {
    const uint64_t *words = page_at(page);
    const bool zeroed = versions[page] & ZEROED;
    uint64_t expected = page_start(page), difference = 0;
    sum = checksum_word(sum, versions[page]);
    for (size_t i = 0; i < PAGE_WORDS; i++) {
      expected = next_word(expected);
      difference |= words[i] ^ ((zeroed ? 0 : expected) + (i == 0 ? touches[page] : 0));
      sum = checksum_word(sum, words[i]);
    }
    wrong_pages += difference != 0;
  }
  fair_unlock(&lock);
  errors_seen += wrong_pages;
  *errors = wrong_pages;
  return checksum_end(sum);
}

const char *memory_touch(uint64_t pages, uint64_t seed) {
  fair_lock(&lock);
  const char *problem = area_pages ? NULL : "there is no memory area yet: fill comes first";
  for (uint64_t i = 0; !problem && i < pages; i++) rewrite_random_page(&seed);
  fair_unlock(&lock);
  return problem;
}

/* Works in short slots, since each is one hold of the lock. What a late slot missed is made up for, up to a limit. */
#define SLOT_MS 2
#define MOST_LATE_US 50000

static void *dirty_pages(void *unused) {
  uint64_t random = 1, sweep = 0;
  double owed = 0;
  (void)unused;
  for (uint64_t before = now_us();; sleep_ms(SLOT_MS)) {
    const uint64_t now = now_us();
    fair_lock(&lock);
    const double pages_per_us = (double)dirty_mb_per_second / PAGE_BYTES;
    const double most = pages_per_us * MOST_LATE_US;
    owed += pages_per_us * (double)(now - before);
    if (owed > most) owed = most;
    for (; area_pages && owed >= 1; owed--, pages_dirtied++) {
      /* A prime stride comes to every page once before it comes to any again, and in no order that helps. */
      if (dirty_by_touch)
        touch_page(sweep++ * 1000003 % area_pages);
      else
        rewrite_random_page(&random);
    }
    fair_unlock(&lock);
    before = now;
  }
  return NULL;
}

/* When this returns with 0, the last page has been written. */
void memory_dirty(uint64_t mb_per_second, bool by_touch) {
  fair_lock(&lock);
  dirty_mb_per_second = mb_per_second;
  dirty_by_touch = by_touch;
  fair_unlock(&lock);
}

uint64_t memory_area_mib(void) { return area_pages / (MIB / PAGE_BYTES); }
uint64_t memory_errors_seen(void) { return errors_seen; }
uint64_t memory_dirty_rate(void) { return dirty_mb_per_second; }
uint64_t memory_dirtied_mib(void) { return pages_dirtied / (MIB / PAGE_BYTES); }
void memory_start(void) { start_thread(dirty_pages); }
