/** Names that Stasis makes itself. */
import { randomBytes } from 'node:crypto';

/** 80 random bits in lower-case hex: short enough for a QEMU node name (31 bytes) with a prefix. */
export function newId(): string {
  return randomBytes(10).toString('hex');
}
