/**
 * A guest that dirties memory as fast as it can, and whose memory tells whether it was captured at one instant:
 * it adds 1 to the first word of each page from 1 MiB to 48 MiB, in order, for ever. So at any instant the words are
 * some n + 1 up to a page, and n from there on.
 */
const FIRST = 0x10_0000;
const END = 0x300_0000;
const PAGE = 4096;
/** So much it writes to. */
export const DIRTIER_BYTES = END - FIRST;
/** Where the guest writes last in each round. */
export const LAST_PAGE = END - PAGE;

const ADD_ONE = 'ff 07'; // incl (%edi)
const STORE = '89 07'; // mov %eax,(%edi)

const PROGRAM = [
  'fa', // cli
  '2e 66 0f 01 16 60 00', // lgdtl %cs:0x60
  '0f 20 c0 0c 01 0f 22 c0', // set CR0.PE
  '66 ea 18 00 0f 00 08 00', // ljmpl $0x08,$0xf0018
  '66 b8 10 00 8e d8', // 0x18: mov $0x10,%ax; mov %ax,%ds
  'bf 00 00 10 00', // 0x1e: mov $0x100000,%edi
  ADD_ONE, // 0x23
  '81 c7 00 10 00 00', // add $4096,%edi
  '81 ff 00 00 00 03', // cmp $0x3000000,%edi
  '75 f0', // jne 0x23
  'eb e9', // jmp 0x1e
];
const DESCRIPTORS = '0000000000000000 ffff0000009bcf00 ffff00000093cf00'; // at 0x40: none, code, data
const GDT_REGISTER = '1700 40000f00'; // at 0x60

/** @param change `false`: it writes the same again and again, which a look at the contents doesn't show */
export function dirtierRom(change = true): Buffer {
  const rom = Buffer.alloc(64 << 10);
  const put = (hex: string, at: number): void => void rom.write(hex.replaceAll(' ', ''), at, 'hex');
  put(PROGRAM.join('').replace(ADD_ONE, change ? ADD_ONE : STORE), 0);
  put(DESCRIPTORS, 0x40);
  put(GDT_REGISTER, 0x60);
  put('e9 0d 00', 0xfff0); // the reset vector: jmp 0
  return rom;
}

/** The counter that the guest has reached; throws when its memory is not that of one instant. */
export function instantOf(memory: Buffer): number {
  let previous = memory.readUInt32LE(FIRST);
  const first = previous;
  for (let at = FIRST; at < END; at += PAGE) {
    const value = memory.readUInt32LE(at);
    if (value > previous || value < first - 1) {
      throw new Error(`memory of two instants: ${value} at ${at} after ${previous}, beginning with ${first}`);
    }
    previous = value;
  }
  return first;
}
