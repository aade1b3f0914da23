/** New guests from an image: many at once, each its own from then on. Always proven by content. */
import assert from 'node:assert/strict';
import { open, readFile } from 'node:fs/promises';
import { test } from 'node:test';
import type { Operation } from '../../src/api/schemas.ts';
import type { Definition } from '../../src/guests/definition.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping, contentOf } from '../support/rules.ts';

const GUEST = 'web1';
const CLONES = ['clone1', 'clone2', 'clone3'];

test('clones of one image, taken at once beside their original, are each their own and leave no trace', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, {
    extra: { networks: [{ type: 'user' }] },
  });
  await witness.fill(5, 8);
  const saved = await changeContent(lab, GUEST, 1);
  await lab.client.createSaveImage(GUEST, { name: 'warm', live: true });
  await Promise.all(CLONES.map((name) => lab.client.restoreSaveImage(GUEST, 'warm', { asNewGuest: name })));

  const guests = await lab.client.listGuests();
  assert.equal(new Set(guests.map(({ uuid }) => uuid)).size, 4);
  const macs = guests.map(({ definition }) => definitionOf(definition).networks[0]?.mac);
  assert.equal(new Set(macs).size, 4);
  assert.equal((await lab.client.getSaveImageInfo(GUEST, 'warm')).restoredCount, 3);
  for (const name of CLONES) assert.deepEqual(await contentOf(lab, name), saved, `${name} is the image`);

  // What one writes, no other sees; a clone has images like any guest.
  const present = new Map([[GUEST, await changeContent(lab, GUEST, 2)]]);
  for (const [index, name] of CLONES.entries()) present.set(name, await changeContent(lab, name, 10 + index));
  await lab.client.createSaveImage('clone1', { name: 'own', live: true });
  const own = present.get('clone1');
  present.set('clone1', await changeContent(lab, 'clone1', 20));

  // The image goes while all stand on it.
  await lab.client.deleteSaveImage(GUEST, 'warm');
  for (const [name, content] of present) assert.deepEqual(await contentOf(lab, name), content);
  await assert.rejects(lab.client.undefineGuest(GUEST), { code: 'invalid-state' });
  await lab.client.stop(GUEST);
  await assert.rejects(lab.client.undefineGuest(GUEST), { code: 'disk-in-use', message: /clone1.*clone3/ });
  await lab.client.start(GUEST);

  await lab.client.restoreSaveImage('clone1', 'own');
  assert.deepEqual(await contentOf(lab, 'clone1'), own);
  for (const name of CLONES.toReversed()) {
    await lab.client.stop(name);
    await lab.client.undefineGuest(name, { deleteImages: true });
  }
  present.delete('clone1');
  await lab.client.createSaveImage(GUEST, { name: 'last', live: true });
  await lab.client.deleteSaveImage(GUEST, 'last');
  assert.equal((await lab.client.getGuest(GUEST)).disks[0]?.layers, 1, 'all that was merged away is merged');
  await checkHousekeeping(lab, GUEST);
});

test('a clone and a restored guest get a new generation id in their memory; a resumed one keeps its own', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running(GUEST);
  const generation = async (name: string) =>
    definitionOf((await lab.client.getGuest(name)).definition).generation ?? '';
  const holds = async (name: string, id: string) =>
    (await memoryOf((await lab.client.getGuest(name)).pid ?? 0)).includes(guidBytes(id));
  const first = await generation(GUEST);
  assert.ok(await holds(GUEST, first));

  await lab.client.createSaveImage(GUEST);
  await lab.client.start(GUEST);
  assert.equal(await generation(GUEST), first);
  assert.ok(await holds(GUEST, first));

  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.restoreSaveImage(GUEST, 'a');
  await lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'other' });
  for (const name of [GUEST, 'other']) {
    const id = await generation(name);
    assert.notEqual(id, first);
    assert.ok(await holds(name, id), `${name} has the new id`);
    assert.ok(!(await holds(name, first)), `${name} has no old id`);
  }
  assert.notEqual(await generation(GUEST), await generation('other'));

  const [clone] = (await lab.client.listOperations()).filter(({ kind }) => kind === 'clone');
  assert.match(outcomeOf(clone, 'identity'), /hostname, machine-id/);
  assert.match(outcomeOf(clone, 'generation'), /new generation id/);
});

test('a clone that is there and does not run yet says what is under way', async () => {
  await using lab = await Lab.create();
  await (await lab.running(GUEST, { system: 'bare', disks: 1 })).close();
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  const [original] = await lab.qemuProcesses();
  await lab.failAt('clone/run:before=halt');
  const cloned = lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'copy' });
  await lab.daemonHalted();
  await lab.failAt();
  const [clone = 0] = (await lab.qemuProcesses()).filter((pid) => pid !== original);
  process.kill(clone, 'SIGSTOP');
  process.kill(lab.daemonPid, 'SIGCONT');
  const { operation } = await lab.client.getGuest('copy');
  assert.equal((await lab.client.getOperation(operation ?? '')).kind, 'clone');
  process.kill(clone, 'SIGCONT');
  await cloned;
  assert.equal((await lab.client.getGuest('copy')).operation, null);
});

test('a clone that can not be is refused with the reason, and nothing is made', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running(GUEST);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  const clone = (asNewGuest: string, request = {}) =>
    lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest, ...request });
  await assert.rejects(clone(GUEST), { code: 'guest-exists' });
  await assert.rejects(clone('../etc'), { code: 'invalid-name' });
  await assert.rejects(clone('b', { delete: true }), { code: 'invalid-request' });
  await assert.rejects(clone('b', { saveCurrent: true }), { code: 'invalid-request' });
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'none', { asNewGuest: 'b' }), {
    code: 'image-not-found',
  });
  assert.equal((await lab.client.listGuests()).length, 1);
  assert.equal((await lab.qemuProcesses()).length, 1);
});

function definitionOf(definition: unknown): Definition {
  return fromStored<Definition>(JSON.stringify(definition));
}

function outcomeOf(operation: Operation | undefined, name: string): string {
  return operation?.outcomes.find((outcome) => outcome.name === name)?.message ?? '';
}

/** As Windows and ACPI write it: the first three fields little-endian. */
function guidBytes(uuid: string): Buffer {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** The largest mapping of a QEMU process is its guest's memory. */
async function memoryOf(pid: number): Promise<Buffer> {
  const ranges = [...(await readFile(`/proc/${pid}/maps`, 'utf8')).matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)]
    .map(([, start = '', end = '']) => ({ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16) }))
    .filter(({ start, end }) => end - start === 128 << 20);
  assert.equal(ranges.length, 1);
  const [{ start, end } = { start: 0, end: 0 }] = ranges;
  await using file = await open(`/proc/${pid}/mem`);
  const memory = Buffer.alloc(end - start);
  await file.read(memory, 0, memory.length, start);
  return memory;
}
