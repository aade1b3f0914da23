/*
 * A guest without an operating system, a program of a few KiB in real mode: it runs as soon as the firmware does, also where
 * instructions are emulated twice and a kernel would boot for a minute. It speaks the witness's language
 * (test-guest/witness.c), less of it: ready, ping, status, hammer, fill, checksum, touch, write, read. Its counter goes up
 * three times a second: often enough to notice a disk of another instant, and seldom enough for who emulates it.
 */
#include "bare.h"

#define MAX_WORDS 5
/* Of the BIOS's timer, 18 of which are a second. It is the clock of all that happens here. */
#define TICKS_PER_ROUND 6

static size_t split(char *line, char **words) {
  size_t count = 0;
  for (;;) {
    while (*line == ' ' || *line == '\r') *line++ = 0;
    if (!*line || count == MAX_WORDS) return count;
    words[count++] = line;
    while (*line && *line != ' ' && *line != '\r') line++;
  }
}

static bool is(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

static uint32_t number(const char *text) {
  uint32_t value = 0;
  for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (uint32_t)(*text - '0');
  return value;
}

static void reply_ready(void) {
  print("@ready {\"disks\":[");
  disks_names();
  print("]}\n");
}

static void reply_status(void) {
  print("@status {");
  disks_status();
  print(",\"memoryErrors\":%u,\"areaMiB\":%u,\"dirtyMBps\":0,\"dirtiedMiB\":0,\"uptimeMs\":0}\n", memory_errors(),
        memory_mib());
}

static void reply_checksum(const char *name) {
  uint32_t errors;
  const uint32_t sum = memory_checksum(&errors);
  print("@%s {\"checksum\":\"%x\",\"errors\":%u,\"mib\":%u}\n", name, sum, errors, memory_mib());
}

static void run(char *line) {
  char *word[MAX_WORDS];
  uint32_t sum = 0;
  const char *problem = NULL;
  const size_t count = split(line, word);
  if (count == 0) return;
#define IS(name, arguments) (is(word[0], name) && count == 1 + (arguments))

  if (IS("ready", 0)) {
    reply_ready();
  } else if (IS("ping", 1)) {
    print("@pong {\"n\":%u}\n", number(word[1]));
  } else if (IS("status", 0)) {
    reply_status();
  } else if (IS("hammer", 1)) {
    disks_count(is(word[1], "on"));
    print("@hammer {\"on\":%s}\n", is(word[1], "on") ? "true" : "false");
  } else if (IS("fill", 2)) {
    problem = memory_fill(number(word[1]), number(word[2]));
    if (!problem) reply_checksum("filled");
  } else if (IS("checksum", 0)) {
    reply_checksum("checksum");
  } else if (IS("touch", 2)) {
    problem = memory_touch(number(word[1]), number(word[2]));
    if (!problem) reply_checksum("touched");
  } else if (IS("write", 4)) {
    problem = disks_write(word[1], number(word[2]), number(word[3]), number(word[4]), &sum);
    if (!problem) print("@wrote {\"checksum\":\"%x\"}\n", sum);
  } else if (IS("read", 3)) {
    problem = disks_read(word[1], number(word[2]), number(word[3]), &sum);
    if (!problem) print("@read {\"checksum\":\"%x\"}\n", sum);
  } else {
    problem = "no such command, or not with these arguments";
  }
  if (problem) print("@error {\"command\":\"%s\",\"message\":\"%s\"}\n", word[0], problem);
#undef IS
}

_Noreturn void main(void) {
  console_start();
  disks_start();
  reply_ready();
  for (uint32_t ticks = 1;; ticks++) {
    __asm__ volatile("sti; hlt; cli; cld" ::: "memory");
    if (ticks % TICKS_PER_ROUND == 0) disks_round();
    for (char *line; (line = read_line()) != NULL;) run(line);
  }
}
