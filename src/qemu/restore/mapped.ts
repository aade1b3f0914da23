import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../errors.ts';
import { prepareMigration, resetMigration } from '../build/capabilities.ts';
import { readBitmap, type MemoryBlock, type MemoryFile } from '../memory/memory-file.ts';
import {
  PAGE_BYTES,
  pageHeader,
  ramSectionEnd,
  ramSectionStart,
  ramStart,
  streamHeader,
  zeroPage,
} from '../memory/migration-stream.ts';
import { fileChannel, STREAM_OFFSET, stayOnError, waitForMigration } from '../migration.ts';
import type { QemuProcess } from '../process/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { MAIN_MEMORY, type LoadRequest, type RestoreMethod, type SavedMemory } from './restore.ts';

/** Everything but the guest's memory, for as long as it is being loaded. */
const REST_FILE = 'rest-of-memory';

/** Devices that give memory back by discarding it: of mapped memory, the file's old contents would come back. */
const DISCARDING = /\/(virtio-balloon|virtio-mem|vhost-user-[a-z]+)$/;

/**
 * The memory file *is* the guest's memory, mapped copy on write: nothing is read before the guest touches it, so a
 * guest of any size runs after milliseconds, and guests from one file share what they don't change. Only the rest,
 * device state and small blocks such as video memory, is loaded, from a stream made for it.
 *
 * The price: the file must stay as it is while the guest runs (it may be unlinked), a read error on it ends QEMU by
 * SIGBUS, and nobody can be told of the guest's writes by userfaultfd: no background capture later.
 *
 * The arguments need QEMU 8.2 (`offset`, `rom`); Stasis needs 9.0 anyway.
 */
export const mapped: RestoreMethod = { name: 'mapped', bringsMemory: true, machineArgs, load };

/** Why a saved guest can't be restored so, for a person; undefined when it can. */
export function whyNotMapped({ devices }: MemoryFile): string | undefined {
  const device = devices.find((name) => DISCARDING.test(name));
  return device === undefined ? undefined : `its device ${device} discards memory`;
}

/** The file that a guest's memory is mapped from, if it is. */
export async function memoryFileOf(qmp: QmpClient): Promise<string | undefined> {
  const backends = await qmp.execute('qom-list', { path: '/objects' });
  if (!backends.some(({ name, type }) => name === 'pc.ram' && type === 'child<memory-backend-file>'))
    return undefined;
  const path = await qmp.execute('qom-get', { path: '/objects/pc.ram', property: 'mem-path' });
  return typeof path === 'string' ? path : undefined;
}

function machineArgs({ file, memory }: SavedMemory): readonly string[] {
  const { sizeBytes, pagesOffset } = mainBlock(memory);
  const backend = {
    'qom-type': 'memory-backend-file',
    id: MAIN_MEMORY,
    size: sizeBytes,
    'mem-path': file,
    offset: pagesOffset,
    share: false,
    readonly: true,
    rom: 'off',
  };
  return [
    ...['-S', '-incoming', 'defer'],
    ...['-object', JSON.stringify(backend), '-machine', `memory-backend=${MAIN_MEMORY}`],
  ];
}

async function load(
  { qmp, runDirectory }: QemuProcess,
  request: LoadRequest,
): Promise<{ readonly loadMs: number }> {
  const { onProgress, signal } = request;
  const rest = join(runDirectory, REST_FILE);
  using migration = qmp.watch('MIGRATION');
  const begin = performance.now();
  await Promise.all([writeRest(request, rest), prepareMigration(qmp, ['events'], {})]);
  await qmp.execute('migrate-incoming', { channels: [fileChannel(rest)], ...stayOnError(qmp) }, { signal });
  await waitForMigration(qmp, migration, ['completed'], { signal, onProgress, failure: 'restore-failed' });
  await resetMigration(qmp);
  await rm(rest);
  return { loadMs: performance.now() - begin };
}

/**
 * A plain stream of the same guest without the pages of its memory. QEMU leaves untouched what no page came for: the
 * mapping, in the case of memory. The zero pages of other blocks are sent: at a machine's start those hold firmware.
 */
async function writeRest({ file, memory }: SavedMemory, path: string): Promise<void> {
  await using source = await open(file, 'r');
  await using target = await open(path, 'wx', 0o600);
  await target.chmod(0o640); // the directory's group is QEMU's, whoever that is
  const { machineType, ramSection, blocks, deviceStateOffset, deviceStateEnd } = memory;
  const pages: Buffer[] = [];
  for (const block of blocks) {
    if (block.id !== MAIN_MEMORY) pages.push(...(await pagesOf(source, block)));
  }
  const devices = Buffer.alloc(deviceStateEnd - deviceStateOffset);
  await source.read(devices, 0, devices.length, deviceStateOffset);
  await target.write(
    Buffer.concat([
      streamHeader(machineType),
      ramStart(ramSection, blocks),
      ramSectionStart(ramSection, 'last'),
      ...pages,
      ramSectionEnd(ramSection),
      devices,
    ]),
    0,
    null,
    STREAM_OFFSET,
  );
}

async function pagesOf(source: Awaited<ReturnType<typeof open>>, block: MemoryBlock): Promise<Buffer[]> {
  const bitmap = await readBitmap(source, block);
  const parts: Buffer[] = [];
  for (let page = 0; page < block.sizeBytes / PAGE_BYTES; page += 1) {
    const name = page === 0 ? block.id : undefined;
    const isPresent = (((bitmap[page >> 3] ?? 0) >> (page & 7)) & 1) === 1;
    if (!isPresent) {
      parts.push(zeroPage(page * PAGE_BYTES, name));
      continue;
    }
    const contents = Buffer.alloc(PAGE_BYTES);
    await source.read(contents, 0, PAGE_BYTES, block.pagesOffset + page * PAGE_BYTES);
    parts.push(pageHeader(page * PAGE_BYTES, name), contents);
  }
  return parts;
}

function mainBlock({ blocks }: MemoryFile): MemoryBlock {
  const block = blocks.find(({ id }) => id === MAIN_MEMORY);
  if (block === undefined) throw new StasisError('image-damaged', `no memory block ${MAIN_MEMORY}`);
  return block;
}
