/* The first serial port (16550), without interrupts. */
#include "bare.h"

#include <stdarg.h>

#define PORT 0x3f8
#define LINE_STATUS (PORT + 5)
#define RECEIVED 0x01
#define CAN_SEND 0x20

static inline void out(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static inline uint8_t in(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

void console_start(void) {
  out(PORT + 1, 0);    /* no interrupts */
  out(PORT + 3, 0x03); /* 8 bits, no parity, 1 stop bit */
  out(PORT + 2, 0x07); /* empty queues, in use */
}

static void put(char c) {
  while (!(in(LINE_STATUS) & CAN_SEND)) {
  }
  out(PORT, (uint8_t)c);
}

static void put_decimal(uint32_t value) {
  if (value >= 10) put_decimal(value / 10);
  put((char)('0' + value % 10));
}

static void put_hexadecimal(uint32_t value) {
  for (int shift = 28; shift >= 0; shift -= 4) put("0123456789abcdef"[(value >> shift) & 15]);
}

void print(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  for (; *format; format++) {
    if (*format != '%') {
      put(*format);
    } else if (*++format == 'u') {
      put_decimal(va_arg(arguments, uint32_t));
    } else if (*format == 'x') {
      put_hexadecimal(va_arg(arguments, uint32_t));
    } else if (*format == 'c') {
      put((char)va_arg(arguments, int));
    } else {
      for (const char *text = va_arg(arguments, const char *); *text; text++) put(*text);
    }
  }
  va_end(arguments);
}

char *read_line(void) {
  static char line[128];
  size_t used = 0;
  if (!(in(LINE_STATUS) & RECEIVED)) return NULL;
  for (;;) {
    while (!(in(LINE_STATUS) & RECEIVED)) {
    }
    char c = (char)in(PORT);
    if (c == '\n') break;
    if (used < sizeof line - 1) line[used++] = c; /* one that doesn't fit is no command */
  }
  line[used] = 0;
  return line;
}
