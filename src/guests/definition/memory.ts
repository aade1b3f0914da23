/** A guest's memory: how much of it, and what pages it is made of. */
import Type, { type Static } from 'typebox';
import { invalid, OneOf, strict } from './schema.ts';

export const MemoryInput = Type.Union([
  Type.String(),
  Type.Integer(),
  Type.Object(
    {
      size: Type.Union([Type.String(), Type.Integer()]),
      hugepages: Type.Optional(Type.Union([Type.Boolean(), OneOf('2MiB', '1GiB')])),
    },
    strict,
  ),
]);

export interface Memory {
  readonly memoryBytes: number;
  /** size of the huge pages that its memory is made of, when it is */
  readonly hugePageBytes?: number;
}

const SIZE = /^(\d+(?:\.\d+)?)\s*(K|M|G|T|Ki|Mi|Gi|Ti)?B?$/i;
const EXPONENTS: Record<string, number> = { k: 1, m: 2, g: 3, t: 4 };
const MIB = 1024 ** 2;

/**
 * Memory sizes are binary whatever the unit's spelling, as everybody's memory is: `2GiB`, `2G`, `512 MB`; a plain number is bytes.
 * @throws StasisError `invalid-definition`
 */
export function parseMemory(memory: string | number): number {
  const bytes = parseSize('memory', memory);
  if (bytes < 16 * MIB || bytes % MIB !== 0)
    throw invalid(`memory "${memory}" must be whole MiB, and at least 16 MiB`);
  return bytes;
}

/** @param what is that big, for the error. @throws StasisError `invalid-definition` */
export function parseSize(what: string, size: string | number): number {
  const [, amount = '', unit = ''] = SIZE.exec(String(size).trim()) ?? [];
  const bytes = Number(amount) * 1024 ** (EXPONENTS[unit.charAt(0).toLowerCase()] ?? 0);
  if (amount === '' || !Number.isSafeInteger(bytes))
    throw invalid(`${what} "${size}" is not a size; write it like 2GiB or 512MiB`);
  return bytes;
}

const HUGE_PAGE_BYTES = { '2MiB': 2 * MIB, '1GiB': 1024 * MIB } as const;

/** @throws StasisError `invalid-definition` */
export function pinMemory(memory: Static<typeof MemoryInput>): Memory {
  const { size, hugepages = false } = typeof memory === 'object' ? memory : { size: memory };
  const memoryBytes = parseMemory(size);
  if (hugepages === false) return { memoryBytes };
  const hugePageBytes = HUGE_PAGE_BYTES[hugepages === true ? '2MiB' : hugepages];
  if (memoryBytes % hugePageBytes !== 0)
    throw invalid(`memory "${size}" is no whole number of huge pages of ${hugePageBytes / MIB} MiB`);
  return { memoryBytes, hugePageBytes };
}
