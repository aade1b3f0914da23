/**
 * What an image of the Debian guest holds, looked at from outside: its memory as it lies in the memory file, its disk as a
 * machine would find it that lost its power at that instant. Nothing of it runs.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import type { Image } from '../../src/api/schemas.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { readMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { dataExtents } from '../../src/qemu/memory/sparse-file.ts';
import { assertNoErrors, type Claim, type Claims, type Held } from './debian-guest.ts';

const execute = promisify(execFile);

const LOAD = join(import.meta.dirname, '../../debian-guest/load/files/usr/local/lib/stasis-load');
const DATA = '/var/lib/stasis-load';
const MAGIC = 'stasis-load page';
const PAGE_BYTES = 4096;
const WRITERS = ['counter', 'records', 'rollback', 'wal'];

/** What the two halves of an image hold. */
export interface Contents {
  readonly claims: Claims;
  readonly held: Held;
}

/**
 * Reads both halves of an image, and checks each by itself: the file system is clean once its journal has been replayed,
 * the databases are whole, every record is there.
 * @param replay `none` when the file system must be clean as it is
 */
export async function readImage(image: Image, replay: 'journal' | 'none' = 'journal'): Promise<Contents> {
  await using work = await workDirectory();
  const disk = join(work.path, 'disk.raw');
  const layer = image.disks.find(({ name }) => name === 'root');
  assert.ok(layer);
  // The layer is pinned: whoever writes to the guest's disk writes elsewhere.
  await run('qemu-img', ['convert', '-U', '-f', layer.format, '-O', 'raw', layer.layer, disk]);
  await checkFileSystem(disk, replay);
  await run('debugfs', ['-R', `rdump ${DATA} ${work.path}`, disk]);
  const data = join(work.path, 'stasis-load');
  const held = {
    counter: Number((await readFile(join(data, 'counter'))).readBigUInt64LE()),
    wal: await readLedger(join(data, 'wal.db')),
    rollback: await readLedger(join(data, 'rollback.db')),
    records: await readRecords(join(data, 'records')),
  };
  return { claims: await readClaims(image.memoryFile), held };
}

/** Memory and disk are of one instant: each writer's last step on the disk is the one that memory says. */
export function assertOneInstant({ claims, held }: Contents): void {
  assert.deepEqual(Object.keys(claims).toSorted(), WRITERS);
  assertNoErrors(claims);
  for (const writer of WRITERS) {
    const { begun, done } = claims[writer] ?? { begun: NaN, done: NaN };
    const step = held[writer] ?? NaN;
    assert.ok(begun - done <= 1, `${writer}: one step at a time`);
    assert.ok(
      done <= step && step <= begun,
      `${writer}: step ${step} on the disk, ${done} or ${begun} in memory`,
    );
  }
}

async function checkFileSystem(disk: string, replay: 'journal' | 'none'): Promise<void> {
  if (replay === 'journal') await replayJournal(disk);
  const { features = '' } =
    /^Filesystem features:(?<features>.*)$/m.exec(await run('dumpe2fs', ['-h', disk]))?.groups ?? {};
  assert.ok(
    features.includes('has_journal') && !features.includes('needs_recovery'),
    'nothing is left to replay',
  );
  await run('e2fsck', ['-f', '-n', disk]);
}

/** As the kernel does when it mounts the file system: the journal, and files that were deleted while they were open. */
async function replayJournal(disk: string): Promise<void> {
  const said = await run('e2fsck', ['-p', disk], [0, 1]);
  const repairs = said
    .split('\n')
    .filter((line) => !/^$|recovering journal|(Clearing|Truncating) orphaned inode|: clean, /.test(line));
  assert.deepEqual(repairs, [], 'nothing is mended but what is in the journal');
}

async function readLedger(path: string): Promise<number> {
  const invariants = await readFile(join(LOAD, 'invariants.sql'), 'utf8');
  const database = new DatabaseSync(path);
  try {
    assert.deepEqual(
      database.prepare('PRAGMA integrity_check').all().map(Object.values).flat(),
      ['ok'],
      path,
    );
    assert.deepEqual(database.prepare(invariants).all(), [], path);
    return Number(database.prepare('SELECT n FROM state').get()?.['n']);
  } finally {
    database.close();
  }
}

/** @returns the number of the last one; the line behind it may be torn, when it was being written */
async function readRecords(directory: string): Promise<number> {
  const names = (await readdir(directory)).toSorted(
    (a, b) => Number(a === 'current') - Number(b === 'current') || (a < b ? -1 : 1),
  );
  let last: number | undefined;
  for (const name of names) {
    const lines = (await readFile(join(directory, name), 'latin1')).split('\n');
    const torn = lines.pop() ?? '';
    assert.ok(torn === '' || name === 'current', `${name} is whole`);
    for (const line of lines) {
      const [number = '', checksum = '', contents = ''] = line.split(' ');
      assert.equal(parseInt(checksum, 16), crc32(contents, Number(number)), `record ${number} of ${name}`);
      assert.equal(Number(number), (last ?? Number(number) - 1) + 1, `no record is missing before ${number}`);
      last = Number(number);
    }
  }
  return last ?? 0;
}

/**
 * Finds the pages of the writers in a memory file. A page that the guest's kernel has moved leaves its old contents behind:
 * the newest counts.
 */
async function readClaims(memoryFile: string): Promise<Claims> {
  const { blocks } = await readMemoryFile(memoryFile, STREAM_OFFSET);
  const ram = blocks.find(({ id }) => id === 'pc.ram');
  assert.ok(ram);
  await using file = await open(memoryFile, 'r');
  const claims: Record<string, Claim> = {};
  for await (const { start, end } of dataExtents(file, ram.pagesOffset, ram.pagesOffset + ram.sizeBytes)) {
    const pages = Buffer.alloc(end - start);
    await file.read(pages, 0, pages.length, start);
    for (let at = 0; at < pages.length; at += PAGE_BYTES) {
      if (pages.toString('latin1', at, at + MAGIC.length) !== MAGIC) continue;
      const { name, claim } = parsePage(pages.subarray(at, at + PAGE_BYTES));
      if (claim.begun >= (claims[name]?.begun ?? 0)) claims[name] = claim;
    }
  }
  return claims;
}

function parsePage(page: Buffer): { name: string; claim: Claim } {
  const text = (from: number, to: number): string => page.toString('utf8', from, to).replace(/\0.*$/s, '');
  const word = (offset: number): number => Number(page.readBigUInt64LE(offset));
  const claim = { begun: word(32), done: word(40), errors: word(48), firstError: text(56, PAGE_BYTES) };
  return { name: text(16, 32), claim };
}

/** @returns what the program printed @throws Error with that when it ends with another status */
async function run(
  command: string,
  args: readonly string[],
  statuses: readonly number[] = [0],
): Promise<string> {
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' };
  try {
    return (await execute(command, args, { env })).stdout;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && 'stdout' in error && 'stderr' in error)) throw error;
    if (statuses.includes(Number(error.code))) return String(error.stdout);
    throw new Error(`${command} ${args.join(' ')}: ${String(error.stdout)}${String(error.stderr)}`, {
      cause: error,
    });
  }
}

async function workDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'stasis-image-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
