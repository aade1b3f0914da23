/** Inputs made from inputs: bytes, words and the structure of JSON are changed, all by one sequence of random numbers. */
import type { Random } from '../support/random.ts';

/** No mutation makes an input longer: what is slow or large beyond that is a matter of the limits that each reader has. */
export const LARGEST_INPUT_BYTES = 64 << 10;

export interface Material {
  /** what an input may be mixed with */
  readonly others: readonly Buffer[];
  /** words of the format */
  readonly words: readonly string[];
}

type Mutation = (input: Buffer, random: Random, material: Material) => Buffer;

/** Some mutations, one after the other. */
export function mutate(
  input: Buffer,
  syntax: 'binary' | 'text' | 'json',
  random: Random,
  material: Material,
): Buffer {
  const choices = [...BYTES, ...(syntax === 'binary' ? [] : TEXT), ...(syntax === 'json' ? JSONS : [])];
  let result = input;
  for (let left = random.of([1, 1, 1, 2, 2, 3, 5, 8]); left > 0; left -= 1)
    result = random.of(choices)(result, random, material);
  return result.subarray(0, LARGEST_INPUT_BYTES);
}

/** Lengths and offsets around which readers go wrong. */
const NUMBERS = [0, 1, -1, 127, 128, 255, 256, 4095, 4096, 32_767, 65_535, 2 ** 20, 2 ** 31, 2 ** 32 - 1];
const LARGE_NUMBERS = [2 ** 32, 2 ** 40, 2 ** 46, 2 ** 53 - 1, 2 ** 53, 2 ** 63].map(BigInt);

const BYTES: readonly Mutation[] = [
  (input, random) => {
    const changed = Buffer.from(input);
    const at = random.between(0, Math.max(0, changed.length - 1));
    if (at < changed.length) changed[at] = (changed[at] ?? 0) ^ (1 << random.between(0, 7));
    return changed;
  },
  (input, random) => put(input, random, Buffer.from([random.between(0, 255)])),
  (input, random) => {
    const number = Buffer.alloc(random.of([1, 2, 4]));
    number.writeUIntBE(random.of(NUMBERS) & (2 ** (8 * number.length - 1) - 1), 0, number.length);
    return put(input, random, number);
  },
  (input, random) => {
    const number = Buffer.alloc(8);
    number.writeBigUInt64BE(random.of(LARGE_NUMBERS));
    return put(input, random, number);
  },
  (input, random) => {
    const [from, to] = range(input, random);
    return Buffer.concat([input.subarray(0, from), input.subarray(to)]);
  },
  (input, random) => {
    const [from, to] = range(input, random);
    const times = random.of([1, 1, 1, 2, 8, 5000]);
    const most = Math.max(1, Math.floor(LARGEST_INPUT_BYTES / Math.max(1, to - from)));
    const copies = Array.from({ length: Math.min(times, most) }, () => input.subarray(from, to));
    return Buffer.concat([input.subarray(0, to), ...copies, input.subarray(to)]);
  },
  (input, random) => input.subarray(0, random.between(0, input.length)),
  (input, random, { others }) => {
    const other = random.of(others);
    return Buffer.concat([
      input.subarray(0, random.between(0, input.length)),
      other.subarray(random.between(0, other.length)),
    ]);
  },
  (input, random, { words }) =>
    words.length === 0 ? input : put(input, random, Buffer.from(random.of(words))),
];

const TOKENS = /[\w.-]+|\s+|[^\w\s]/g;
const STRANGE = [
  '\0',
  '\uFEFF',
  '\u2028',
  '\r',
  '-0',
  '1e999',
  '9007199254740993',
  '%',
  '%E0%A4',
  '__proto__',
];

const TEXT: readonly Mutation[] = [
  (input, random, { words }) =>
    tokens(input, (all, at) => {
      all[at] = random.of([...words, ...STRANGE, String(random.of(NUMBERS))]);
    })(random),
  (input, random) => tokens(input, (all, at) => all.splice(at, 1))(random),
  (input, random) =>
    tokens(input, (all, at) => {
      const other = random.between(0, all.length - 1);
      [all[at], all[other]] = [all[other] ?? '', all[at] ?? ''];
    })(random),
  (input, random, { others }) =>
    tokens(input, (all, at) => {
      const strange = random.of(others).toString('utf8').match(TOKENS) ?? [''];
      const start = random.between(0, strange.length - 1);
      all.splice(at, random.between(0, 3), ...strange.slice(start, start + random.between(1, 10)));
    })(random),
];

const VALUES: readonly unknown[] = [
  ...[null, true, '', 'x', [], {}, 0, -1, 0.5, 2 ** 53, 1e308, '\0', [null], [[]], { '': null }],
];

const JSONS: readonly Mutation[] = [
  // twice as often as what breaks the syntax
  (input, random, material) => changeValue(input, random, material),
  (input, random, material) => changeValue(input, random, material),
  (input, random, material) => changeValue(input, random, material),
];

/** Puts another value, or one from elsewhere, in the place of one of a document's, or takes it out. */
function changeValue(input: Buffer, random: Random, { others }: Material): Buffer {
  const document = parsed(input);
  if (document === undefined) return input;
  const places = placesIn(document);
  if (places.length === 0) return Buffer.from(JSON.stringify(random.of(VALUES)));
  const { parent, key } = random.of(places);
  const foreign = placesIn(parsed(random.of(others)));
  if (random.between(0, 4) === 0) Reflect.deleteProperty(parent, key);
  else if (foreign.length > 0 && random.between(0, 1) === 0) {
    const from = random.of(foreign);
    Reflect.set(parent, key, Reflect.get(from.parent, from.key));
  } else Reflect.set(parent, key, random.of(VALUES));
  return Buffer.from(JSON.stringify(document));
}

interface PlaceInJson {
  readonly parent: object;
  readonly key: string;
}

function placesIn(value: unknown): PlaceInJson[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [{ parent: value, key }, ...placesIn(inner)]);
}

function parsed(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString('utf8'));
  } catch {
    return undefined;
  }
}

function tokens(input: Buffer, change: (all: string[], at: number) => unknown): (random: Random) => Buffer {
  return (random) => {
    const all: string[] = input.toString('utf8').match(TOKENS) ?? [''];
    change(all, random.between(0, all.length - 1));
    return Buffer.from(all.join(''));
  };
}

/** In place of as many bytes, or between two. */
function put(input: Buffer, random: Random, bytes: Buffer): Buffer {
  const at = random.between(0, input.length);
  const over = random.between(0, 1) === 0 ? bytes.length : 0;
  return Buffer.concat([input.subarray(0, at), bytes, input.subarray(at + over)]);
}

/** Mostly short ones. */
function range(input: Buffer, random: Random): readonly [from: number, to: number] {
  const from = random.between(0, input.length);
  const length = random.of([1, 2, 4, 8, 32, input.length]);
  return [from, Math.min(input.length, from + random.between(1, Math.max(1, length)))];
}
