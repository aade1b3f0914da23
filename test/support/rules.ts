/** The rules of the design that never bend, checked by content: on files, processes and what a guest says of itself. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Image } from '../../src/client/index.ts';
import { fromStored } from '../../src/stored.ts';
import type { Lab } from './lab.ts';

const run = promisify(execFile);

/** What an image must hold: known when it was taken. */
export interface Content {
  readonly memory: string;
  readonly disk: string;
}

/** Where the tests keep known content on the first disk. */
export const REGION = { disk: 'vda', offsetMiB: 16, mib: 2 } as const;

/** What the guest holds now, and that memory and disks are of one instant. */
export async function contentOf(lab: Lab, guest: string): Promise<Content> {
  await using witness = await lab.witness(guest);
  const memory = await witness.checksum();
  const status = await witness.status();
  assert.equal(memory.errors, 0, 'no page of memory is wrong');
  assert.equal(
    status.mismatches,
    0,
    `disk and memory are of one instant: ${JSON.stringify(status.firstMismatch)}`,
  );
  assert.equal(status.firstIoError, null, 'no disk reported an error');
  const disk = await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib);
  return { memory: memory.checksum, disk: disk.checksum };
}

/** Changes memory and disk, so that what comes next is different from all before. @param seed a new one each time */
export async function changeContent(lab: Lab, guest: string, seed: number): Promise<Content> {
  {
    await using witness = await lab.witness(guest);
    await witness.touch(150, seed);
    await witness.write(REGION.disk, REGION.offsetMiB, REGION.mib, seed);
  }
  return contentOf(lab, guest);
}

/** More than the daemon waits before it comes back to what it could not collect. */
const COLLECTED_WITHIN_MS = 15_000;

/** Nothing half-done is listed, nothing is left over, and every process is known. */
export async function checkHousekeeping(lab: Lab, guest: string): Promise<void> {
  for (const { id, state } of await lab.client.listOperations())
    if (state === 'running') await lab.client.followOperation(id);
  // Layers that a merge left are collected by an operation that the daemon begins by itself, when the guest is left alone.
  const operations = (await lab.client.listOperations()).filter(({ kind }) => kind !== 'collect');
  assert.deepEqual(
    operations.filter(({ state }) => state === 'running').map(({ kind, phase }) => `${kind} ${phase}`),
    [],
    'no operation is under way',
  );
  const { uuid, state } = await lab.client.getGuest(guest);
  const processes = await lab.qemuProcesses();
  assert.equal(
    processes.length,
    state === 'running' || state === 'paused' ? 1 : 0,
    `one process for a guest that is ${state}`,
  );

  const images = await lab.client.listSaveImages(guest);
  const directory = join(lab.paths.data, 'guests', uuid);
  assert.equal(
    (await entries(join(directory, 'images'))).length,
    images.length,
    'one directory for each image',
  );

  // What was put off is collected when the guest has been left alone for a moment, and what is seen then is of two moments.
  for (const giveUpAt = performance.now() + COLLECTED_WITHIN_MS; ; await delay(200)) {
    try {
      return await checkLayers(lab, directory, guest, images);
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
    }
  }
}

/** No layer in the guest's directory, or beside its disks, that nothing stands on. */
async function checkLayers(
  lab: Lab,
  directory: string,
  guest: string,
  images: readonly Image[],
): Promise<void> {
  const { uuid, disks } = await lab.client.getGuest(guest);
  const used = new Set<string>();
  for (const top of [
    ...disks.map(({ head }) => head),
    ...images.flatMap((image) => image.disks.map(({ layer }) => layer)),
  ]) {
    for (const file of await chain(top)) used.add(file);
  }
  const layers = [...(await lab.layersOnGround())];
  for (const place of new Set([
    join(directory, 'layers'),
    ...disks.map(({ path }) => besideDisk(path, uuid)),
  ]))
    for (const name of await entries(place)) layers.push(join(place, name));
  assert.deepEqual(
    layers.filter((file) => !used.has(file)),
    [],
    'every layer has its reason',
  );
}

/** Every image listed as ready restores to exactly what it held, and the guest can go on from there. */
export async function checkImages(
  lab: Lab,
  guest: string,
  expected: ReadonlyMap<string, Content>,
): Promise<void> {
  for (const { name, state } of await lab.client.listSaveImages(guest)) {
    assert.equal(state, 'ready');
    const content = expected.get(name);
    if (content === undefined) continue;
    await lab.client.restoreSaveImage(guest, name);
    assert.deepEqual(await contentOf(lab, guest), content, `image ${name} restores exactly`);
  }
}

/** Where layers are that share blocks with a disk. */
export function besideDisk(path: string, uuid: string): string {
  return join(dirname(path), '.stasis', uuid);
}

/** A volume is raw and stands on nothing. */
async function chain(top: string): Promise<string[]> {
  if ((await stat(top)).isBlockDevice()) return [top];
  const { stdout } = await run('qemu-img', ['info', '-U', '--backing-chain', '--output=json', top]);
  return fromStored<{ filename: string }[]>(stdout).map(({ filename }) => filename);
}

async function entries(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => []);
}
