/** One life of a guest on every kind of storage that can be had here: the same images, whatever holds its disks. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { GROUNDS, kindsNamed, type GroundKind } from '../support/grounds.ts';
import { Lab } from '../support/lab.ts';
import {
  besideDisk,
  changeContent,
  checkHousekeeping,
  checkImages,
  contentOf,
  type Content,
} from '../support/rules.ts';

const run = promisify(execFile);
const GUEST = 'web1';
/** So long that no copy of blocks is put off for it, however busy the host is when it is rehearsed. */
const PATIENT = { maxPauseMs: 10_000 };
const [XFS_RAW] = kindsNamed('reflinks of raw files on XFS');
assert.ok(XFS_RAW);

describe('a guest whose disks are', () => {
  for (const kind of GROUNDS.filter(({ name }) => !/raw files on XFS/.test(name)))
    test(kind.name, { skip: kind.skip, timeout: 300_000 }, () => live(kind));
});

describe('a disk of 1 TiB costs no more than one of 1 GiB:', () => {
  for (const kind of GROUNDS.filter(({ name }) => !/raw files$|devices|raw files on XFS|beside/.test(name)))
    test(kind.name, { skip: kind.skip, timeout: 300_000 }, () => sparse(kind));
});

test(
  'a disk in too many pieces gets an overlay, is told of, and is copied again when it can be',
  {
    skip: XFS_RAW.skip,
    timeout: 300_000,
  },
  fragmented,
);

async function live(kind: GroundKind): Promise<void> {
  await using lab = await Lab.on(kind);
  const { client } = lab;
  {
    await using witness = await lab.running(GUEST, { system: 'bare' });
    await witness.fill(5, 8);
  }
  const { disks, uuid } = await client.getGuest(GUEST);
  assert.deepEqual(
    disks.map(({ driver }) => driver),
    [kind.driver, kind.second ?? kind.driver],
  );
  const places = disks.map(({ path }) => besideDisk(path, uuid));

  // Images while the guest writes to both disks: the counter in memory and on disk tells whether they are of one instant.
  const expected = new Map<string, Content>();
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    expected.set(name, await changeContent(lab, GUEST, 10 + index));
    await client.createSaveImage(GUEST, { name, live: true, ...PATIENT });
  }
  const present = await changeContent(lab, GUEST, 20);
  if (kind.driver === 'reflink' && kind.second === undefined) await checkCopies(lab, places);

  // A clone is its own, and outlives the image.
  await client.restoreSaveImage(GUEST, 'b', { asNewGuest: 'copy' });
  assert.deepEqual(await contentOf(lab, 'copy'), expected.get('b'));
  const cloned = await changeContent(lab, 'copy', 30);
  await client.deleteSaveImage(GUEST, 'b');
  expected.delete('b');
  assert.deepEqual(await contentOf(lab, GUEST), present, 'nobody noticed the delete');
  assert.deepEqual(await contentOf(lab, 'copy'), cloned);
  await client.createSaveImage('copy', { name: 'own', live: true, ...PATIENT });
  await changeContent(lab, 'copy', 31);
  await client.restoreSaveImage('copy', 'own');
  assert.deepEqual(await contentOf(lab, 'copy'), cloned);
  await client.stop('copy');
  await client.undefineGuest('copy', { deleteImages: true });

  await checkImages(lab, GUEST, expected);
  const last = await changeContent(lab, GUEST, 40);
  await client.createSaveImage(GUEST);
  await client.start(GUEST);
  assert.deepEqual(await contentOf(lab, GUEST), last, 'suspended and resumed');
  await checkHousekeeping(lab, GUEST);
  await client.restoreSaveImage(GUEST, 'a', { delete: true });
  assert.deepEqual(await contentOf(lab, GUEST), expected.get('a'));
  expected.delete('a');
  const final = await changeContent(lab, GUEST, 50);
  await client.stop(GUEST);
  await checkHousekeeping(lab, GUEST);

  const brought = await lab.disksOf(GUEST);
  // What it wrote is where the user put it, and nothing else is left.
  await client.undefineGuest(GUEST, { deleteImages: true });
  assert.deepEqual(await lab.files(), []);
  for (const place of places) assert.ok(!existsSync(dirname(place)), 'nothing is left beside the disk');
  for (const { path, format } of disks)
    if (format === 'qcow2') await run('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
  await lab.defineOn('again', brought, { system: 'bare' });
  await client.start('again');
  await using witness = await lab.witness('again');
  assert.equal((await witness.read('vda', 16, 2)).checksum, final.disk);
}

/** Every image has layers of its own, whole and clean, and the guest still writes to what it wrote to at first. */
async function checkCopies(lab: Lab, places: readonly string[]): Promise<void> {
  const { disks } = await lab.client.getGuest(GUEST);
  for (const { layers, head, path } of disks) {
    assert.equal(layers, 1);
    assert.equal(head, path);
  }
  const images = await lab.client.listSaveImages(GUEST);
  const pinned = images.flatMap((image) => image.disks);
  assert.equal(new Set(pinned.map(({ layer }) => layer)).size, images.length * disks.length);
  for (const { layer, format } of pinned) {
    assert.ok(places.includes(dirname(layer)), `${basename(layer)} is beside the disk`);
    if (format === 'qcow2') await run('qemu-img', ['check', '-q', '-f', 'qcow2', layer]);
  }
}

/** What a capture leaves of an untouched disk, in bytes that are allocated. Not timed: bench has the figures. */
async function sparse(kind: GroundKind): Promise<void> {
  await using lab = await Lab.on(kind);
  const { client } = lab;
  const disks = [];
  for (const [name, sizeMiB] of [['small', 1024] as const, ['large', 1024 ** 2] as const])
    disks.push({ name, ...(await lab.makeDisk(name, sizeMiB)) });
  await lab.defineOn(GUEST, disks, { system: 'bare' });
  await client.start(GUEST);
  {
    await using witness = await lab.witness(GUEST);
    await witness.hammer('off');
  }
  for (const name of ['a', 'b']) await client.createSaveImage(GUEST, { name, live: true, ...PATIENT });
  await client.restoreSaveImage(GUEST, 'a');
  for (const top of [
    ...(await client.listSaveImages(GUEST)).map((image) => image.disks.map(({ layer }) => layer)),
    (await client.getGuest(GUEST)).disks.map(({ head }) => head),
  ]) {
    const [small = 0, large = 0] = await Promise.all(
      top.map(async (path) => (await stat(path)).blocks * 512),
    );
    assert.ok(Math.abs(large - small) <= TABLES_BYTES, `${large} and ${small} bytes`);
  }
}

/** qcow2 keeps a table whose length follows from the disk's: 16 KiB for 1 TiB, and what it is rounded up to. */
const TABLES_BYTES = 256 << 10;

async function fragmented(): Promise<void> {
  assert.ok(XFS_RAW);
  await using lab = await Lab.on(XFS_RAW);
  const { client } = lab;
  const pieces = await lab.makeDisk('pieces', 256);
  await breakUp(pieces.path, 256);
  await lab.defineOn(GUEST, [{ name: 'pieces', ...pieces }], { system: 'bare' });
  await client.start(GUEST);
  {
    await using witness = await lab.witness(GUEST);
    await witness.fill(5, 8);
  }
  const expected = new Map<string, Content>();
  const save = async (name: string, seed: number, wish: { maxPauseMs?: number }) => {
    expected.set(name, await changeContent(lab, GUEST, seed));
    await client.createSaveImage(GUEST, { name, live: true, ...wish });
    const [operation] = await client.listOperations();
    return operation?.warnings.join('\n') ?? '';
  };
  assert.match(
    await save('a', 1, {}),
    /^disk pieces got an overlay this time: its reflink copy would take \d+ ms of pause/m,
  );
  const [disk] = (await client.getGuest(GUEST)).disks;
  assert.equal(disk?.driver, 'reflink');
  assert.equal(disk.layers, 2);
  assert.doesNotMatch(await save('b', 2, PATIENT), /got an overlay/);
  const [now] = (await client.getGuest(GUEST)).disks;
  assert.equal(now?.head, disk.head, 'the overlay was copied, and is written to as before');
  await client.deleteSaveImage(GUEST, 'a');
  expected.delete('a');
  await checkImages(lab, GUEST, expected);
  await checkHousekeeping(lab, GUEST);
}

/** Writes every other block, so that each is an extent of its own. The counter's place and that of known content stay free. */
async function breakUp(path: string, sizeMiB: number): Promise<void> {
  await using file = await open(path, 'r+');
  const block = Buffer.alloc(4096, 7);
  for (let position = 32 << 20; position < sizeMiB << 20; position += 2 * block.length)
    await file.write(block, 0, block.length, position);
  await file.sync();
}
