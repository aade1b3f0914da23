/** Layers that could not be merged when they became nobody's are later, by the daemon itself, and never in anybody's way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Lab } from '../support/lab.ts';
import {
  changeContent,
  checkHousekeeping,
  checkImages,
  contentOf,
  REGION,
  type Content,
} from '../support/rules.ts';

const GUEST = 'web1';
/** So much that a merge takes far longer than a request. */
const WRITTEN_MIB = 24;

for (const state of ['running', 'stopped'] as const)
  test(`a merge in a ${state} guest gives way to whoever wants the guest, and is done when it is left alone`, async () => {
    await using lab = await Lab.create();
    const { client } = lab;
    const kept = await begin(lab);
    await using witness = await lab.witness(GUEST);
    await witness.write('vda', 32, WRITTEN_MIB, 2);
    await client.createSaveImage(GUEST, { name: 'read', live: true });
    const now = await changeContent(lab, GUEST, 3);
    if (state === 'stopped') await client.stop(GUEST);
    const held = await client.exportDisk(GUEST, 'read', { disk: 'disk0' });
    await client.deleteSaveImage(GUEST, 'read');

    await lab.failAt('collect/absorb-layer:before=halt');
    held[Symbol.dispose]();
    await lab.daemonHalted();
    await lab.failAt();
    const wanted = state === 'running' ? client.pause(GUEST) : client.start(GUEST);
    await delay(250); // until it waits for the daemon that is stopped: the merge goes on as soon as that does
    process.kill(lab.daemonPid, 'SIGCONT');
    await wanted;
    const merge = (await client.listOperations()).findLast(({ kind }) => kind === 'collect');
    assert.deepEqual(
      merge?.outcomes.map(({ name, outcome }) => [name, outcome]),
      [['collect', 'skipped']],
    );

    await merged(lab);
    if (state === 'running') await client.resume(GUEST);
    const content = await contentOf(lab, GUEST);
    if (state === 'running') assert.deepEqual(content, now);
    else assert.equal(content.disk, now.disk);
    await checkHousekeeping(lab, GUEST);
    await checkImages(lab, GUEST, new Map([['kept', kept]]));
  });

test('a merge that a crash interrupted does not keep the next daemon from serving', async () => {
  await using lab = await Lab.create();
  const { client } = lab;
  const kept = await begin(lab);
  await client.createSaveImage(GUEST, { name: 'gone', live: true });
  const now = await changeContent(lab, GUEST, 2);
  await lab.failAt('delete/absorb-layer:before=kill');
  const deleted = client.deleteSaveImage(GUEST, 'gone'); // it asks the next daemon again
  await lab.daemonEnded();
  await lab.failAt();
  await lab.startDaemon();
  await deleted;
  await merged(lab);
  const merging = (await client.listOperations()).filter(({ kind }) => ['delete', 'collect'].includes(kind));
  assert.deepEqual(
    merging.map(({ kind, state }) => [kind, state]),
    [
      ['collect', 'done'],
      ['delete', 'done'],
    ],
    'what the deletion left is an operation of its own',
  );
  assert.deepEqual(await contentOf(lab, GUEST), now);
  await checkHousekeeping(lab, GUEST);
  await checkImages(lab, GUEST, new Map([['kept', kept]]));
});

test('nor does a guest that was being undefined: its disk is brought back meanwhile', async () => {
  await using lab = await Lab.create();
  const { client } = lab;
  await begin(lab);
  const { disk } = await changeContent(lab, GUEST, 2);
  const brought = await lab.disksOf(GUEST);
  await client.stop(GUEST);
  await lab.failAt('undefine/fold-layer:before=kill');
  const gone = client.undefineGuest(GUEST, { deleteImages: true }); // it asks the next daemon again
  await lab.daemonEnded();
  await lab.failAt();
  await lab.startDaemon();
  await gone;
  const told = (await client.listEvents()).map(({ type, action }) => `${type} ${action}`);
  assert.ok(told.lastIndexOf('daemon started') < told.indexOf('guest undefined'), told.join('\n'));
  assert.deepEqual(await lab.files(), []);

  await lab.defineOn('again', brought, { system: 'bare' });
  await client.start('again');
  await using witness = await lab.witness('again');
  assert.equal((await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib)).checksum, disk);
});

/** A guest that runs, and its image `kept`. @returns what that holds */
async function begin(lab: Lab): Promise<Content> {
  await using witness = await lab.running(GUEST, { system: 'bare', disks: 1 });
  await witness.fill(1, 1);
  const kept = await changeContent(lab, GUEST, 1);
  await lab.client.createSaveImage(GUEST, { name: 'kept', live: true });
  return kept;
}

/** Resolves when a chain has nothing more than what the image holds and what the guest writes to, and who saw to it is done. */
async function merged(lab: Lab): Promise<void> {
  const since = Math.max(...(await lab.client.listEvents()).map(({ id }) => id));
  const isMerged = async () =>
    (await lab.client.listDisks(GUEST)).every(({ layers }) => layers.length === 2) &&
    (await lab.client.listOperations()).every(({ state }) => state !== 'running');
  if (await isMerged()) return;
  for await (const { type, action } of lab.client.events({ since }))
    if (type === 'operation' && action === 'done' && (await isMerged())) return;
}
