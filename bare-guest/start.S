/*
 * What QEMU takes for a Linux kernel (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header") of version 2.2, loaded
 * high: it puts everything up to the end of the sectors that are counted here to 0x10000, and jumps to their second in real mode.
 */
.code16
.section .header, "ax"
  .org 0x1f1
  .byte setup_sectors - 1 /* the first is not counted */
  .org 0x1fe
  .word 0xaa55
  .org 0x200
  jmp start
  .ascii "HdrS"
  .word 0x0202
  .org 0x211
  .byte 1 /* loaded high */
  .org 0x240 /* what a loader fills in ends before */

/* One segment for code, data and stack, so that offsets are all that C knows; interrupts come only while main waits. */
start:
  cli
  cld
  ljmp $SEGMENT, $1f
1:
  mov %cs, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %ss
  mov $0xfff0, %esp
  mov $bss_start, %edi
  mov $bss_end, %ecx
  sub %edi, %ecx
  xor %eax, %eax
  rep stosb
  calll main

.section .note.GNU-stack, "", @progbits
