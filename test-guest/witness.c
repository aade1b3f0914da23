/*
 * The console: one command a line, one reply a line, `@name {json}`.
 *
 *   ready                             @ready {"disks":[…]}; also printed once at the start
 *                                     @mismatch {…} is printed when a disk first holds something else than memory says
 *   ping [N]                          @pong {} or @pong {"n":N}
 *   status                            @status {…}
 *   interval MS                       time between two rounds of the counter, 0: as fast as it can
 *   hammer on|off                     the counter; after the reply to `off` it stands still
 *   fill SEED MIB                     a new memory area
 *   checksum                          checks every page of it
 *   touch PAGES SEED                  rewrites pages, a third of them with zeroes
 *   dirty MBPS [touch]                goes on rewriting pages at that rate, 0: stops; touch: changes one word of each
 *   watch off|on|beats                looks for stalls each millisecond; beats: and prints a line `~` each time
 *   stalls                            the longest of them since the last `stalls`
 *   write DISK OFFSET_MIB MIB SEED    durable, past the guest's cache
 *   read DISK OFFSET_MIB MIB          past the guest's cache
 *   files                             what was written to the mounted disk
 *   setvar VALUE, getvar              a variable of UEFI
 *   extend VALUE, store VALUE, tpm    a register and a non-volatile index of the TPM; what both hold
 *   sync, poweroff, crash
 *
 * What fails answers `@error {"command":…,"message":…}`. Kernel arguments preset some of it:
 * fill=SEED:MIB interval=MS hammer=off noacpi (the power button is ignored) agent (QEMU's guest agent is started)
 * mount=DISK (an ext4 file system, written to all the time; that disk holds no counter).
 */
#define _GNU_SOURCE
#include "witness.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINE 256
#define MAX_ARGUMENTS 5
#define MAX_REPLY 2048

static int console = STDOUT_FILENO;

void reply(const char *name, const char *json_format, ...) {
  char line[MAX_REPLY];
  va_list arguments;
  size_t used = (size_t)snprintf(line, sizeof line, "@%s ", name);
  va_start(arguments, json_format);
  used += (size_t)vsnprintf(line + used, sizeof line - used, json_format, arguments);
  va_end(arguments);
  if (used > sizeof line - 2) used = sizeof line - 2;
  line[used++] = '\n';
  if (write(console, line, used) < 0) _exit(1); /* without a console there is nobody to witness for */
}

void print_line(const char *text) {
  char line[64];
  const int used = snprintf(line, sizeof line, "%s\n", text);
  if (write(console, line, (size_t)used) < 0) _exit(1);
}

void sleep_ms(unsigned ms) {
  if (ms == 0) return;
  struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) {
  }
}

uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void start_thread(void *(*body)(void *)) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, body, NULL) != 0)
    reply("error", "{\"command\":\"\",\"message\":\"a thread could not be started\"}");
}

static void reply_error(const char *command, const char *message) {
  char safe[64];
  size_t i;
  for (i = 0; command[i] && i < sizeof safe - 1; i++)
    safe[i] = isprint((unsigned char)command[i]) && !strchr("\"\\", command[i]) ? command[i] : '?';
  safe[i] = 0;
  reply("error", "{\"command\":\"%s\",\"message\":\"%s\"}", safe, message);
}

static void reply_ready(void) {
  char names[MAX_REPLY / 2];
  disks_names_json(names, sizeof names);
  reply("ready", "{\"disks\":[%s]}", names);
}

static void reply_status(void) {
  char disks[MAX_REPLY - 512];
  disks_status_json(disks, sizeof disks);
  reply("status",
        "{%s,\"memoryErrors\":%" PRIu64 ",\"areaMiB\":%" PRIu64 ",\"dirtyMBps\":%" PRIu64 ",\"dirtiedMiB\":%" PRIu64
        ",\"uptimeMs\":%" PRIu64 "}",
        disks, memory_errors_seen(), memory_area_mib(), memory_dirty_rate(), memory_dirtied_mib(),
        now_us() / 1000);
}

static void crash(void) {
  int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "c", 1) < 0) reply_error("crash", strerror(errno));
}

static bool parse_number(const char *text, uint64_t *value) {
  char *end;
  errno = 0;
  *value = strtoull(text, &end, 10);
  return isdigit((unsigned char)*text) && *end == 0 && errno == 0;
}

/* The arguments after `first` must be numbers, as many as the command wants. */
static bool parse_numbers(char **arguments, size_t first, size_t count, uint64_t *numbers) {
  for (size_t i = 0; i < count; i++)
    if (!parse_number(arguments[first + i], &numbers[i])) return false;
  return true;
}

static bool parse_watch(const char *text, enum watch *how) {
  static const char *const names[] = {[WATCH_OFF] = "off", [WATCH_ON] = "on", [WATCH_BEATS] = "beats"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    *how = (enum watch)i;
    if (strcmp(text, names[i]) == 0) return true;
  }
  return false;
}

static void run(char *line) {
  char *arguments[MAX_ARGUMENTS + 1], *rest = NULL;
  uint64_t n[MAX_ARGUMENTS], errors, sum;
  const char *problem = NULL;
  enum watch watch;
  size_t count = 0;
  for (char *word = strtok_r(line, " \t\r", &rest); word && count <= MAX_ARGUMENTS; word = strtok_r(NULL, " \t\r", &rest))
    arguments[count++] = word;
  if (count == 0) return;
  const char *command = arguments[0];
#define IS(name, argument_count) (strcmp(command, name) == 0 && count == 1 + (argument_count))

  if (IS("ready", 0)) {
    reply_ready();
  } else if (IS("ping", 0)) {
    reply("pong", "{}");
  } else if (IS("ping", 1) && parse_numbers(arguments, 1, 1, n)) {
    reply("pong", "{\"n\":%" PRIu64 "}", n[0]);
  } else if (IS("status", 0)) {
    reply_status();
  } else if (IS("interval", 1) && parse_numbers(arguments, 1, 1, n) && n[0] <= 60000) {
    disks_interval((unsigned)n[0]);
    reply("interval", "{\"intervalMs\":%" PRIu64 "}", n[0]);
  } else if (IS("hammer", 1) && (!strcmp(arguments[1], "on") || !strcmp(arguments[1], "off"))) {
    bool on = strcmp(arguments[1], "on") == 0;
    disks_count(on);
    reply("hammer", "{\"on\":%s}", on ? "true" : "false");
  } else if (IS("fill", 2) && parse_numbers(arguments, 1, 2, n)) {
    problem = memory_fill(n[0], n[1]);
    if (!problem)
      reply("filled", "{\"seed\":%" PRIu64 ",\"mib\":%" PRIu64 ",\"checksum\":\"%016" PRIx64 "\"}", n[0], n[1],
            memory_checksum(&errors));
  } else if (IS("checksum", 0)) {
    sum = memory_checksum(&errors);
    reply("checksum", "{\"checksum\":\"%016" PRIx64 "\",\"errors\":%" PRIu64 ",\"mib\":%" PRIu64 "}", sum, errors,
          memory_area_mib());
  } else if (IS("touch", 2) && parse_numbers(arguments, 1, 2, n)) {
    problem = memory_touch(n[0], n[1]);
    if (!problem) {
      sum = memory_checksum(&errors);
      reply("touched", "{\"checksum\":\"%016" PRIx64 "\",\"errors\":%" PRIu64 "}", sum, errors);
    }
  } else if ((IS("dirty", 1) || (IS("dirty", 2) && !strcmp(arguments[2], "touch"))) &&
             parse_numbers(arguments, 1, 1, n) && n[0] <= 100000) {
    memory_dirty(n[0], count == 3);
    reply("dirty", "{\"dirtyMBps\":%" PRIu64 "}", n[0]);
  } else if (IS("watch", 1) && parse_watch(arguments[1], &watch)) {
    stalls_watch(watch);
    reply("watch", "{\"how\":\"%s\"}", arguments[1]);
  } else if (IS("stalls", 0)) {
    stalls_reply();
  } else if (IS("write", 4) && parse_numbers(arguments, 2, 3, n)) {
    problem = disks_write(arguments[1], n[0], n[1], n[2], &sum);
    if (!problem) reply("wrote", "{\"checksum\":\"%016" PRIx64 "\"}", sum);
  } else if (IS("read", 3) && parse_numbers(arguments, 2, 2, n)) {
    problem = disks_read(arguments[1], n[0], n[1], &sum);
    if (!problem) reply("read", "{\"checksum\":\"%016" PRIx64 "\"}", sum);
  } else if (IS("files", 0)) {
    problem = files_reply();
  } else if (IS("setvar", 1) && parse_numbers(arguments, 1, 1, n)) {
    problem = variable_write(n[0]);
    if (!problem) reply("setvar", "{}");
  } else if (IS("getvar", 0)) {
    problem = variable_read(&sum);
    if (!problem) reply("getvar", "{\"value\":%" PRIu64 "}", sum);
  } else if (IS("extend", 1) && parse_numbers(arguments, 1, 1, n)) {
    problem = tpm_extend(n[0]);
    if (!problem) reply("extend", "{}");
  } else if (IS("store", 1) && parse_numbers(arguments, 1, 1, n)) {
    problem = tpm_store(n[0]);
    if (!problem) reply("store", "{}");
  } else if (IS("tpm", 0)) {
    problem = tpm_reply();
  } else if (IS("sync", 0)) {
    sync();
    reply("sync", "{}");
  } else if (IS("poweroff", 0)) {
    power_off();
  } else if (IS("crash", 0)) {
    crash();
  } else {
    problem = "no such command, or not with these arguments";
  }
  if (problem) reply_error(command, problem);
#undef IS
}

/* Lines that don't fit are dropped whole: half of one may be a different command. */
static void serve(void) {
  char line[MAX_LINE], received[MAX_LINE];
  size_t used = 0;
  bool too_long = false;
  for (;;) {
    ssize_t got = read(console, received, sizeof received);
    if (got <= 0) sleep_ms(10); /* a hang-up of the console passes */
    for (ssize_t i = 0; i < got; i++) {
      if (received[i] == '\n') {
        line[used] = 0;
        if (too_long)
          reply_error("", "the line is too long");
        else
          run(line);
        used = 0;
        too_long = false;
      } else if (used < sizeof line - 1) {
        line[used++] = received[i];
      } else {
        too_long = true;
      }
    }
  }
}

static void open_console(void) {
  int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return; /* a guest without a serial port stays with the console that the kernel gave it */
  console = fd;
  struct termios settings;
  if (tcgetattr(console, &settings) != 0) return;
  cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL | CREAD;
  tcsetattr(console, TCSANOW, &settings);
}

int main(void) {
  char cmdline[2048] = "", mounted[32] = "", *rest = NULL;
  bool counting = true, button = true, agent = false;
  unsigned interval_ms = 50;
  unsigned long long seed = 0, mib = 0;

  boot();
  FILE *file = fopen("/proc/cmdline", "r");
  if (!file || !fgets(cmdline, sizeof cmdline, file)) cmdline[0] = 0;
  if (file) fclose(file);
  for (char *word = strtok_r(cmdline, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
    sscanf(word, "fill=%llu:%llu", &seed, &mib);
    sscanf(word, "interval=%u", &interval_ms);
    sscanf(word, "mount=%31s", mounted);
    if (strcmp(word, "hammer=off") == 0) counting = false;
    if (strcmp(word, "noacpi") == 0) button = false;
    if (strcmp(word, "agent") == 0) agent = true;
  }

  open_console();
  const char *problem = mib > 0 ? memory_fill(seed, mib) : NULL;
  if (problem) reply_error("fill", problem);
  memory_start();
  stalls_start();
  disks_start(counting, interval_ms, mounted);
  if (mounted[0]) files_start(mounted);
  if (button) power_watch_button();
  if (agent) agent_start();
  reply_ready();
  serve();
}
