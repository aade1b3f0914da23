/*
 * Pages from 2 MiB on whose contents follow from a seed, as in test-guest/memory.c. They are beyond the reach of real mode:
 * a segment that was loaded in protected mode keeps its limit of 4 GiB ("unreal mode"). The BIOS may take it away again, so it
 * is loaded at the beginning of each work; nothing interrupts that.
 */
#include "bare.h"

#define AREA 0x200000u
#define MAX_MIB 8
/* A zeroed page is a version of its own: images treat zero pages specially. */
#define ZEROED 0x8000u

static uint16_t versions[MAX_MIB * PAGES_PER_MIB];
static uint32_t pages, area_seed, errors_seen;

static void reach_all_memory(void) {
  static const uint64_t descriptors[] = {0, 0x00cf92000000ffffull}; /* none; data, 4 GiB from 0 on */
  const struct __attribute__((packed)) {
    uint16_t limit;
    uint32_t base;
  } table = {sizeof descriptors - 1, SEGMENT_BASE + (uint32_t)(uintptr_t)descriptors};
  uint32_t scratch;
  __asm__ volatile("lgdtl %1\n"
                   "mov %%cr0, %0; or $1, %b0; mov %0, %%cr0\n"
                   "mov $8, %w0; mov %w0, %%fs\n"
                   "mov %%cr0, %0; and $0xfe, %b0; mov %0, %%cr0\n"
                   "xor %w0, %w0; mov %w0, %%fs" /* address 0, and the limit stays */
                   : "=&q"(scratch)
                   : "m"(table)
                   : "memory", "cc");
}

static volatile uint32_t __seg_fs *page_at(uint32_t page) {
  return (volatile uint32_t __seg_fs *)(AREA + page * PAGE_WORDS * 4);
}

static uint32_t page_start(uint32_t page) {
  return mix(area_seed ^ mix(page + 1) ^ ((uint32_t)versions[page] << 16)) | 1;
}

static void rewrite(uint32_t page, uint16_t version) {
  volatile uint32_t __seg_fs *words = page_at(page);
  versions[page] = version;
  uint32_t word = page_start(page);
  for (uint32_t i = 0; i < PAGE_WORDS; i++) words[i] = version & ZEROED ? 0 : (word = next_word(word));
}

const char *memory_fill(uint32_t seed, uint32_t mib) {
  if (mib > MAX_MIB) return "the guest has not that much free memory";
  reach_all_memory();
  area_seed = seed;
  pages = mib * PAGES_PER_MIB;
  for (uint32_t page = 0; page < pages; page++) rewrite(page, 0);
  return NULL;
}

const char *memory_touch(uint32_t count, uint32_t seed) {
  if (pages == 0) return "there is no memory area yet: fill comes first";
  reach_all_memory();
  for (uint32_t random = mix(seed) | 1; count > 0; count--) {
    random = next_word(random);
    const uint32_t page = (random >> 8) % pages;
    const uint16_t version = (uint16_t)((versions[page] & ~ZEROED) + 1);
    rewrite(page, (random & 0xff) < 0x100 / 3 ? (uint16_t)(version | ZEROED) : version);
  }
  return NULL;
}

uint32_t memory_checksum(uint32_t *errors) {
  uint32_t sum = CHECKSUM_START;
  *errors = 0;
  reach_all_memory();
  for (uint32_t page = 0; page < pages; page++) {
    volatile uint32_t __seg_fs *words = page_at(page);
    uint32_t expected = page_start(page), difference = 0;
    sum = checksum_word(sum, versions[page]);
    for (uint32_t i = 0; i < PAGE_WORDS; i++) {
      const uint32_t word = words[i];
      expected = next_word(expected);
      difference |= word ^ (versions[page] & ZEROED ? 0 : expected);
      sum = checksum_word(sum, word);
    }
    *errors += difference != 0;
  }
  errors_seen += *errors;
  return sum;
}

uint32_t memory_errors(void) { return errors_seen; }
uint32_t memory_mib(void) { return pages / PAGES_PER_MIB; }
