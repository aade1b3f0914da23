/**
 * A guest of 64 KiB that does what every kernel does first: from real mode to protected mode to 64-bit mode with
 * paging, CPUID, an MSR, memory under fresh page tables, a long loop, port I/O. It ends QEMU through the device
 * isa-debug-exit with `PROOF_EXIT_STATUS`. (AMD64 Architecture Programmer's Manual vol. 2, 14.6 "Enabling and
 * Activating Long Mode".)
 *
 * The loop is the point of it: 2 × 10^8 instructions are 0.1 s of a CPU that runs the guest itself. There are hosts,
 * virtual machines mostly, whose KVM interprets each instruction: a guest seems to hang in its boot loader, while
 * all short tests pass. Seen: 10^6 instructions per second.
 */
const PROGRAM: readonly (readonly [bytes: string, instruction: string])[] = [
  // Real mode. The ROM is at 0xf0000 and below 4 GiB; we run in the upper copy until the first far jump.
  ['fa', 'cli'],
  ['2e 66 0f 01 16 d0 00', 'lgdtl %cs:gdt_register'],
  ['0f 20 c0', 'mov %cr0,%eax'],
  ['0c 01', 'or $1,%al                    protection enable'],
  ['0f 22 c0', 'mov %eax,%cr0'],
  ['66 ea 18 00 0f 00 08 00', 'ljmpl $0x08,$0xf0018'],
  // 0x18: protected mode, 32 bits.
  ['66 b8 10 00', 'mov $0x10,%ax'],
  ['8e d8', 'mov %ax,%ds'],
  ['8e c0', 'mov %ax,%es'],
  ['8e d0', 'mov %ax,%ss'],
  // Page tables: 1 GiB mapped to itself, in pages of 2 MiB.
  ['c7 05 00 10 00 00 03 20 00 00', 'movl $0x2003,0x1000          level 4'],
  ['c7 05 00 20 00 00 03 30 00 00', 'movl $0x3003,0x2000          level 3'],
  ['bf 00 30 00 00', 'mov $0x3000,%edi             level 2'],
  ['b8 83 00 00 00', 'mov $0x83,%eax               present, writable, large'],
  ['b9 00 02 00 00', 'mov $512,%ecx'],
  ['89 07', '1: mov %eax,(%edi)'],
  ['05 00 00 20 00', 'add $0x200000,%eax'],
  ['83 c7 08', 'add $8,%edi'],
  ['e2 f4', 'loop 1b'],
  ['0f 20 e0', 'mov %cr4,%eax'],
  ['0c 20', 'or $0x20,%al                 physical address extension'],
  ['0f 22 e0', 'mov %eax,%cr4'],
  ['b8 00 10 00 00', 'mov $0x1000,%eax'],
  ['0f 22 d8', 'mov %eax,%cr3'],
  ['b9 80 00 00 c0', 'mov $0xc0000080,%ecx         EFER'],
  ['0f 32', 'rdmsr'],
  ['80 cc 01', 'or $1,%ah                    long mode enable'],
  ['0f 30', 'wrmsr'],
  ['0f 20 c0', 'mov %cr0,%eax'],
  ['0d 00 00 00 80', 'or $0x80000000,%eax          paging'],
  ['0f 22 c0', 'mov %eax,%cr0'],
  ['ea 7f 00 0f 00 18 00', 'ljmp $0x18,$0xf007f'],
  // 0x7f: long mode, 64 bits.
  ['31 c0', 'xor %eax,%eax'],
  ['0f a2', 'cpuid'],
  ['bf 00 00 20 00', 'mov $0x200000,%edi           one word in each page, 2 MiB to 32 MiB'],
  ['89 3f', '2: mov %edi,(%rdi)'],
  ['81 c7 00 10 00 00', 'add $4096,%edi'],
  ['81 ff 00 00 00 02', 'cmp $0x2000000,%edi'],
  ['75 f0', 'jne 2b'],
  ['b9 00 e1 f5 05', 'mov $100000000,%ecx'],
  ['ff c9', '3: dec %ecx'],
  ['75 fc', 'jnz 3b'],
  ['8b 87 00 f0 ff ff', 'mov -4096(%rdi),%eax         what was written last: 0x1fff000'],
  ['c1 e8 14', 'shr $20,%eax'],
  ['e6 f4', 'out %al,$0xf4                isa-debug-exit'],
  ['f4', '4: hlt'],
  ['eb fd', 'jmp 4b'],
  ['90', 'nop'],
  // 0xb0: segment descriptors.
  ['00 00 00 00 00 00 00 00', 'none'],
  ['ff ff 00 00 00 9b cf 00', '0x08: 32-bit code'],
  ['ff ff 00 00 00 93 cf 00', '0x10: data'],
  ['ff ff 00 00 00 9b af 00', '0x18: 64-bit code'],
  // 0xd0: gdt_register, limit and address.
  ['1f 00 b0 00 0f 00', ''],
];

const ROM_BYTES = 64 << 10;
/** Where an x86 CPU begins, 16 bytes before the end of the ROM. */
const RESET_VECTOR = ROM_BYTES - 16;
const JUMP_TO_START = [0xe9, 0x0d, 0x00]; // jmp 0, relative to the next instruction

/** isa-debug-exit makes of the byte it gets: twice that, plus 1. */
export const PROOF_EXIT_STATUS = 0x1f * 2 + 1;

/** QEMU's arguments to run `proofRom()`, written to a file, as a guest's firmware. */
export function proofArguments(romPath: string): readonly string[] {
  const machine = [
    '-machine',
    'pc',
    '-m',
    '64',
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-no-reboot',
  ];
  return [...machine, '-bios', romPath, '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'];
}

/** The program as a firmware image. */
export function proofRom(): Buffer {
  const rom = Buffer.alloc(ROM_BYTES);
  rom.write(PROGRAM.map(([bytes]) => bytes.replaceAll(' ', '')).join(''), 0, 'hex');
  rom.set(JUMP_TO_START, RESET_VECTOR);
  return rom;
}
