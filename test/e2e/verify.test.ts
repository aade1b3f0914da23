/** Images are what they were, or verify says what of them isn't, and where. Damage is done behind the daemon's back. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, open, readFile, rename, stat, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Image, Operation } from '../../src/client/index.ts';
import type { Manifest } from '../../src/images/manifest.ts';
import { sumFile } from '../../src/storage/file-sum-process.ts';
import { PIECE_BYTES } from '../../src/storage/file-sum.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping } from '../support/rules.ts';

const GUEST = 'web1';
const run = promisify(execFile);

test('a good image is verified; damage to any part of it is told with its place, and is no more when it is put right', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, { disks: 2 });
  await witness.fill(1, 16);
  await changeContent(lab, GUEST, 1);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await changeContent(lab, GUEST, 2);
  await lab.client.createSaveImage(GUEST, { name: 'b', live: true });

  const first = await lab.client.verifySaveImage(GUEST, 'b');
  assert.equal(first.state, 'ready');
  assert.ok(first.verifiedAt !== null && first.verifiedAt === first.verified.checksumsAt);
  assert.match(messageOf(await newest(lab), 'memory'), /recorded now/);
  const image = await lab.client.verifySaveImage(GUEST, 'b');
  const parts = await newest(lab);
  assert.match(messageOf(parts, 'memory'), /^as on /);
  assert.match(messageOf(parts, 'memory file'), /complete/);
  assert.deepEqual(
    parts.outcomes.map(({ outcome }) => outcome),
    parts.outcomes.map(() => 'done'),
  );
  assert.ok(
    parts.outcomes.some(({ name }) => name === 'chain, disk disk1 1'),
    'down to the root',
  );
  await lab.recordsWritten();
  await checkManifest(image);

  // A byte in the memory, one in the middle of a layer's data, a file cut short, two layers in each other's place.
  const memory = image.memoryFile;
  const layer = image.disks[0]?.layer ?? '';
  const other = image.disks[1]?.layer ?? '';
  const page = 60 << 20; // among the guest's pages
  await whileHarmed(lab, [memory], () => flip(memory, page), [['memory', page]]);
  const cluster = await dataOffset(layer);
  await whileHarmed(lab, [layer], () => flip(layer, cluster), [
    ['disk disk0', cluster],
    ['chain, disk disk0', null],
  ]);
  await whileHarmed(lab, [layer], () => truncate(layer, cluster), [
    ['disk disk0', cluster],
    ['chain, disk disk0', null],
  ]);
  await whileHarmed(lab, [memory], () => truncate(memory, 1 << 21), [
    ['memory', 1 << 21],
    ['memory file', null],
  ]);
  await whileHarmed(lab, [layer, other], () => swap(layer, other), [
    ['disk disk0', 0],
    ['chain, disk disk0', null],
    ['disk disk1', 0],
    ['chain, disk disk1', null],
  ]);
  await checkHousekeeping(lab, GUEST);
});

test('checksums come by themselves and follow what is merged and compacted; a scrub finds all images sound, or says which is not', async () => {
  await using lab = await Lab.create();
  await lab.endDaemon('SIGTERM');
  await mkdir(lab.paths.config, { recursive: true });
  const settle = (scrub: string) =>
    writeFile(join(lab.paths.config, 'stasis.yaml'), `checksums: {afterSeconds: 0.1}\nscrub: ${scrub}\n`);
  await settle('false');
  await lab.startDaemon();
  await using witness = await lab.running(GUEST, { system: 'bare', disks: 1 });
  await witness.fill(1, 4);
  for (const [seed, name] of ['a', 'b', 'c'].entries()) {
    await changeContent(lab, GUEST, seed);
    await lab.client.createSaveImage(GUEST, { name, live: true });
  }
  await summed(lab, { a: 1, c: 3 });
  await lab.client.deleteSaveImage(GUEST, 'b');
  await lab.client.compactDisks(GUEST);
  await summed(lab, { a: 1, c: 2 });
  for (const name of ['a', 'c']) {
    assert.equal((await lab.client.verifySaveImage(GUEST, name)).state, 'ready');
    const compared = (await newest(lab)).outcomes.filter(({ name: part }) => /^(memory|disk .*)$/.test(part));
    for (const { message } of compared) assert.match(message, /^as on /);
  }

  await flip((await lab.client.getSaveImageInfo(GUEST, 'a')).memoryFile, 60 << 20);
  await lab.endDaemon('SIGTERM');
  await settle('{schedule: "* * * * * *"}');
  await lab.startDaemon();
  for await (const { action, message } of lab.client.events({ since: 0 })) {
    if (action !== 'scrub-ended') continue;
    assert.equal(message, `images scrubbed: 1 sound, damaged: ${GUEST} / a`);
    break;
  }
  const { scrub } = await lab.client.hostStatus();
  assert.equal(scrub.schedule, '* * * * * *');
  assert.ok(scrub.last !== null);
  assert.equal((await lab.client.getSaveImageInfo(GUEST, 'a')).state, 'broken');
  assert.equal((await lab.client.getSaveImageInfo(GUEST, 'c')).state, 'ready');
  assert.match((await lab.cli(['host', 'status'])).stdout, /scrub .*next/);
});

/** Waits until these images have checksums of their memory and of so many layers: nothing announces that. */
async function summed(lab: Lab, expected: Readonly<Record<string, number>>): Promise<void> {
  for (const [name, layers] of Object.entries(expected)) {
    const { memoryFile } = await lab.client.getSaveImageInfo(GUEST, name);
    for (;;) {
      await lab.recordsWritten();
      const text = await readFile(join(dirname(memoryFile), 'manifest.json'), 'utf8');
      const { checksums } = fromStored<Manifest>(text);
      if (checksums?.memory !== undefined && checksums.layers.length === layers) break;
      await delay(50);
    }
  }
}

/** Does harm to files, sees that just that is found and the image is never restored, and puts them back as they were. */
async function whileHarmed(
  lab: Lab,
  files: readonly string[],
  harm: () => Promise<unknown>,
  expected: readonly [part: string, at: number | null][],
): Promise<void> {
  for (const file of files) await run('cp', ['-a', '--sparse=always', file, `${file}.good`]);
  const inodes = await Promise.all(files.map(async (file) => (await stat(file)).ino));
  await harm();
  const told = await lab.cli(['verify', GUEST, 'b', '--json']);
  assert.equal(told.status, 1, told.stdout);
  const { error } = fromStored<{ error: { code: string; details: { parts: Operation['outcomes'] } } }>(
    told.stderr,
  );
  assert.equal(error.code, 'image-damaged');
  const bad = error.details.parts.filter(({ outcome }) => outcome === 'failed');
  assert.deepEqual(bad.map(({ name }) => name).toSorted(), expected.map(([name]) => name).toSorted());
  for (const [name, at] of expected) {
    const [range] = bad.find((part) => part.name === name)?.ranges ?? [];
    if (at !== null)
      assert.ok(range && range.start <= at && range.end > at && range.start > at - PIECE_BYTES);
  }
  const broken = await lab.client.getSaveImageInfo(GUEST, 'b');
  assert.equal(broken.state, 'broken');
  assert.equal(broken.verifiedAt, null);
  assert.match(broken.damage ?? '', new RegExp(expected[0]?.[0] ?? ''));
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'b'), {
    code: /image-damaged|disk-changed|disk-missing/,
  });
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'b', { asNewGuest: 'c' }), {
    code: /image-damaged|disk-/,
  });

  // Back into the same files, which are known by their inodes too.
  for (const [index, file] of files.entries()) {
    const now = await Promise.all(files.map(async (each) => ({ each, ino: (await stat(each)).ino })));
    const holder = now.find(({ ino }) => ino === inodes[index])?.each ?? '';
    if (holder !== file) await swap(holder, file);
  }
  for (const file of files) {
    await run('cp', ['--sparse=always', `${file}.good`, file]);
    await run('touch', ['-r', `${file}.good`, file]);
    await run('rm', [`${file}.good`]);
  }
  assert.equal((await lab.client.verifySaveImage(GUEST, 'b')).state, 'ready');
}

async function flip(path: string, at: number): Promise<void> {
  await using file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, at);
}

async function swap(one: string, other: string): Promise<void> {
  await rename(one, `${one}.aside`);
  await rename(other, one);
  await rename(`${one}.aside`, other);
}

/** Where the first data of a qcow2 file is, by qemu-img. */
async function dataOffset(path: string): Promise<number> {
  const { stdout } = await run('qemu-img', ['map', '-U', '--output=json', path]);
  const parts = fromStored<{ depth: number; data: boolean; zero: boolean; offset?: number }[]>(stdout);
  const own = parts.find(({ depth, data, zero }) => depth === 0 && data && !zero);
  assert.ok(own?.offset !== undefined, 'the layer holds data of its own');
  return own.offset;
}

/** What a copy of the image could be verified with. */
async function checkManifest(image: Image): Promise<void> {
  const path = join(dirname(image.memoryFile), 'manifest.json');
  const { checksums } = fromStored<Manifest>(await readFile(path, 'utf8'));
  assert.equal(checksums?.memory?.sha256, (await sumFile(image.memoryFile)).sha256);
  assert.equal(checksums?.layers.length, 4);
  for (const { path: file, sha256 } of checksums?.layers ?? [])
    assert.equal((await sumFile(file)).sha256, sha256);
}

async function newest(lab: Lab): Promise<Operation> {
  const [operation] = await lab.client.listOperations();
  assert.ok(operation?.kind === 'verify');
  return operation;
}

function messageOf({ outcomes }: Operation, part: string): string {
  return outcomes.find(({ name }) => name === part)?.message ?? '';
}
