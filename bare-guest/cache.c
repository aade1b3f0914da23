/*
 * Whether the disks keep what is written in their cache. The BIOS can't flush, so QEMU has every write go through to the medium, which
 * costs a guest more time than all else it does, and has its processor wait busily. A disk's own setting is stronger than that:
 * `writeback` of its configuration (Virtual I/O Device 1.3, 5.2.4), reached through PCI's configuration space (4.1.4.9).
 */
#include "bare.h"

#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define PCI_CAPABILITIES 0x34
#define VIRTIO_VENDOR 0x1af4
#define VENDOR_CAPABILITY 0x09
#define DEVICE_CONFIGURATION 4
#define ACCESS_TO_CONFIGURATION 5
#define WRITEBACK_OFFSET 32

/* A place that is written to by way of the registers at `window`. */
static struct {
  uint16_t device;
  uint8_t window, bar;
  uint32_t offset;
} settings[MAX_DISKS];
static uint32_t count; /* of those that are used */

static inline void out32(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static inline void out8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static inline uint32_t in32(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static void address(uint16_t device, uint8_t at) { out32(PCI_ADDRESS, 0x80000000u | (uint32_t)device << 8 | (at & 0xfcu)); }

static uint32_t get(uint16_t device, uint8_t at) {
  address(device, at);
  return in32(PCI_DATA) >> 8 * (at & 3);
}

static void set(uint16_t device, uint8_t at, uint32_t value) {
  address(device, at);
  out32(PCI_DATA, value);
}

static void set_byte(uint16_t device, uint8_t at, uint8_t value) {
  address(device, at);
  out8(PCI_DATA + (at & 3), value);
}

/* Asks the BIOS for the n-th device of that kind (PCI BIOS Specification 2.1, FIND_PCI_DEVICE). */
static bool find(uint16_t kind, uint16_t n, uint16_t *device) {
  uint32_t result = 0xb102, found = 0;
  uint8_t failed;
  __asm__ volatile("int $0x1a; setc %2; cli; cld"
                   : "+a"(result), "+b"(found), "=q"(failed)
                   : "c"((uint32_t)kind), "d"(VIRTIO_VENDOR), "S"((uint32_t)n)
                   : "edi", "memory", "cc");
  *device = (uint16_t)found;
  return !failed;
}

static void add(uint16_t device) {
  bool has_place = false;
  settings[count].device = device;
  settings[count].window = 0;
  for (uint8_t at = (uint8_t)get(device, PCI_CAPABILITIES); at != 0; at = (uint8_t)get(device, at + 1)) {
    if ((get(device, at) & 0xff) != VENDOR_CAPABILITY) continue;
    const uint8_t type = (uint8_t)get(device, at + 3);
    if (type == ACCESS_TO_CONFIGURATION) settings[count].window = at;
    if (type != DEVICE_CONFIGURATION) continue;
    has_place = true;
    settings[count].bar = (uint8_t)get(device, at + 4);
    settings[count].offset = get(device, at + 8) + WRITEBACK_OFFSET;
  }
  if (has_place && settings[count].window != 0) count++;
}

void cache_start(void) {
  static const uint16_t kinds[] = {0x1042, 0x1001}; /* a modern block device, and one that can be used as an old one too */
  uint16_t device;
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
    for (uint16_t n = 0; count < MAX_DISKS && find(kinds[kind], n, &device); n++) add(device);
}

/* A write that goes through takes all before it along. After a restore they do so until they are told otherwise again. */
void cache_writes(bool on) {
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t window = settings[i].window;
    set_byte(settings[i].device, window + 4, settings[i].bar);
    set(settings[i].device, window + 8, settings[i].offset);
    set(settings[i].device, window + 12, 1);
    set_byte(settings[i].device, window + 16, on);
  }
}
