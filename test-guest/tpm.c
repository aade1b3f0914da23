/*
 * The TPM, spoken to in its own language: TPM 2.0 commands, big-endian, through the kernel's device (TCG, "TPM 2.0 Library, Part
 * 3: Commands"). Register 16 is for debugging, and may be extended by anybody; what it holds is a function of all
 * that it was extended with since the start. A non-volatile index outlives that.
 */
#define _GNU_SOURCE
#include "witness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REGISTER 16
#define NV_INDEX 0x01500020u
#define SHA256_BYTES 32
#define HEADER_BYTES 10

enum { ST_NO_SESSIONS = 0x8001, ST_SESSIONS = 0x8002, ALG_SHA256 = 0x000b, RS_PW = 0x40000009, RH_OWNER = 0x40000001 };
enum { CC_NV_DEFINE = 0x12a, CC_NV_WRITE = 0x137, CC_NV_READ = 0x14e, CC_PCR_READ = 0x17e, CC_PCR_EXTEND = 0x182 };
enum { NV_OWNER_WRITE = 1 << 1, NV_OWNER_READ = 1 << 17, NV_NO_DA = 1 << 25 };

struct message {
  uint8_t bytes[1024];
  size_t used;
};

static void put(struct message *m, uint64_t value, size_t size) {
  while (size-- > 0) m->bytes[m->used++] = (uint8_t)(value >> (8 * size));
}

static void begin(struct message *m, uint16_t tag, uint32_t command) {
  m->used = 0;
  put(m, tag, 2);
  put(m, 0, 4); /* the size, when it is known */
  put(m, command, 4);
}

/* An empty password: nobody has taken ownership of this TPM. */
static void put_session(struct message *m) {
  put(m, 9, 4);
  put(m, RS_PW, 4);
  put(m, 0, 2);
  put(m, 0, 1);
  put(m, 0, 2);
}

static const char *ask(struct message *m) {
  static char problem[64];
  const uint32_t size = htonl((uint32_t)m->used);
  memcpy(m->bytes + 2, &size, sizeof size);
  int fd = open("/dev/tpm0", O_RDWR | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  ssize_t got = -1;
  if (write(fd, m->bytes, m->used) == (ssize_t)m->used) got = read(fd, m->bytes, sizeof m->bytes);
  close(fd);
  if (got < HEADER_BYTES) return "no answer";
  m->used = (size_t)got;
  uint32_t code;
  memcpy(&code, m->bytes + 6, sizeof code);
  if (code == 0) return NULL;
  snprintf(problem, sizeof problem, "the TPM answers 0x%x", ntohl(code));
  return problem;
}

const char *tpm_extend(uint64_t value) {
  struct message m;
  begin(&m, ST_SESSIONS, CC_PCR_EXTEND);
  put(&m, REGISTER, 4);
  put_session(&m);
  put(&m, 1, 4);
  put(&m, ALG_SHA256, 2);
  for (size_t i = 0; i < SHA256_BYTES / sizeof value; i++) put(&m, value, sizeof value);
  return ask(&m);
}

/* The digest is the last thing in the answer. */
static const char *read_register(uint8_t *digest) {
  struct message m;
  begin(&m, ST_NO_SESSIONS, CC_PCR_READ);
  put(&m, 1, 4);
  put(&m, ALG_SHA256, 2);
  put(&m, 3, 1);
  put(&m, 0, 1);
  put(&m, 0, 1);
  put(&m, 1, 1); /* bit 0 of the third byte is register 16 */
  const char *problem = ask(&m);
  if (!problem && m.used < HEADER_BYTES + SHA256_BYTES) problem = "too short an answer";
  if (!problem) memcpy(digest, m.bytes + m.used - SHA256_BYTES, SHA256_BYTES);
  return problem;
}

/* That the index may be there already is no matter: then the write says what is wrong, if anything. */
const char *tpm_store(uint64_t value) {
  struct message m;
  begin(&m, ST_SESSIONS, CC_NV_DEFINE);
  put(&m, RH_OWNER, 4);
  put_session(&m);
  put(&m, 0, 2);
  put(&m, 14, 2);
  put(&m, NV_INDEX, 4);
  put(&m, ALG_SHA256, 2);
  put(&m, NV_OWNER_WRITE | NV_OWNER_READ | NV_NO_DA, 4);
  put(&m, 0, 2);
  put(&m, sizeof value, 2);
  ask(&m);

  begin(&m, ST_SESSIONS, CC_NV_WRITE);
  put(&m, RH_OWNER, 4);
  put(&m, NV_INDEX, 4);
  put_session(&m);
  put(&m, sizeof value, 2);
  put(&m, value, sizeof value);
  put(&m, 0, 2);
  return ask(&m);
}

static const char *read_stored(uint64_t *value) {
  struct message m;
  begin(&m, ST_SESSIONS, CC_NV_READ);
  put(&m, RH_OWNER, 4);
  put(&m, NV_INDEX, 4);
  put_session(&m);
  put(&m, sizeof *value, 2);
  put(&m, 0, 2);
  const char *problem = ask(&m);
  if (problem) return problem;
  const size_t data = HEADER_BYTES + 4 + 2; /* the size of the parameters, the size of the data */
  if (m.used < data + sizeof *value) return "too short an answer";
  *value = 0;
  for (size_t i = 0; i < sizeof *value; i++) *value = *value << 8 | m.bytes[data + i];
  return NULL;
}

const char *tpm_reply(void) {
  uint8_t digest[SHA256_BYTES];
  char hex[2 * SHA256_BYTES + 1];
  uint64_t stored = 0;
  const char *problem = read_register(digest);
  if (problem) return problem;
  for (size_t i = 0; i < SHA256_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
  const bool is_stored = read_stored(&stored) == NULL;
  reply("tpm", "{\"register\":\"%s\",\"stored\":%" PRId64 "}", hex, is_stored ? (int64_t)stored : -1);
  return NULL;
}
