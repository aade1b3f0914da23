/*
 * A guest of one sector, which needs no kernel and is up as soon as the firmware is: about twice a second it counts, in memory and
 * on its disk, and says the number on the first serial port, in eight hexadecimal digits a line. Before it writes a number
 * to the disk it looks whether the one before is there; if it isn't, the line ends with `!` for ever.
 *
 * Real mode, at 0x7c00 (the first sector of the boot disk); the second sector has the number, as a little-endian word of 32 bits.
 */
.code16
.globl _start
#define NUMBER 0x7e00
#define FOUND 0x8000
#define BIOS_TICKS 0x46c
#define TICKS_A_STEP 9
#define COM1 0x3f8
#define COM1_STATUS 0x3fd
#define CAN_SEND 0x20
#define READ 0x42
#define WRITE 0x43

_start:
  cli
  xorw %ax, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  movw $0x7c00, %sp
  sti
  movb %dl, drive
  cld
  movw $NUMBER, %di             /* the sector that is written: all zeros */
  movw $256, %cx
  rep stosw

step:
  movl BIOS_TICKS, %ebx
await:
  hlt
  movl BIOS_TICKS, %eax
  subl %ebx, %eax
  cmpl $TICKS_A_STEP, %eax
  jb await

  movl NUMBER, %ebx
  testl %ebx, %ebx
  jz write                      /* the first time nothing has been written yet */
  movb $READ, %ah
  movw $FOUND, buffer
  call disk
  cmpl %ebx, FOUND
  je write
  movb $'!', mark
write:
  incl NUMBER
  movb $WRITE, %ah
  movw $NUMBER, buffer
  call disk

  movl NUMBER, %ebx
  movw $8, %cx
digit:
  roll $4, %ebx
  movb %bl, %al
  andb $15, %al
  addb $'0', %al
  cmpb $'9', %al
  jbe say_digit
  addb $('a' - '9' - 1), %al
say_digit:
  call say
  loop digit
  movb mark, %al
  call say
  movb $'\n', %al
  call say
  jmp step

/* One sector, by the BIOS's extended calls; AH: which. */
disk:
  movb $0, %al
  movb drive, %dl
  movw $packet, %si
  int $0x13
  jnc done
  movb $'!', mark
done:
  ret

say:
  movb %al, %ah
  movw $COM1_STATUS, %dx
wait_to_send:
  inb %dx, %al
  testb $CAN_SEND, %al
  jz wait_to_send
  movb %ah, %al
  movw $COM1, %dx
  outb %al, %dx
  ret

drive: .byte 0
mark: .byte ' '
.balign 4
packet: .byte 16, 0
  .word 1
buffer: .word 0, 0
  .quad 1

.org 510
.word 0xaa55
