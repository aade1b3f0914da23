/**
 * A clone with the daemon or its QEMU killed at every step: afterwards it is there, running and whole, or nothing of it is;
 * and neither the guest it is of nor the image notices.
 */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Lab } from '../support/lab.ts';
import { changeContent, contentOf, type Content } from '../support/rules.ts';

const GUEST = 'web1';
const CLONE = 'copy';
const STEPS = ['lay-heads', 'load', 'commit', 'run'];

let lab: Lab;
let saved: Content;

before(async () => {
  lab = await Lab.create();
  await using witness = await lab.running(GUEST, { system: 'bare' });
  await witness.fill(1, 8);
  saved = await changeContent(lab, GUEST, 1);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
});
after(() => lab[Symbol.asyncDispose]());

const points = STEPS.flatMap((step) =>
  process.env['STASIS_FAULTS'] === 'all' ? [`${step}:before`, `${step}:after`] : [`${step}:before`],
);
for (const action of ['kill', 'guest', 'error']) {
  for (const point of points) test(`clone: ${action} at ${point}`, () => cloneWithFault(point, action));
}

async function cloneWithFault(point: string, action: string): Promise<void> {
  const present = await changeContent(lab, GUEST, 100 + points.indexOf(point));
  await lab.failAt(`clone/${point}=${action}`);
  const outcome = lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: CLONE }).then(
    () => 'done',
    () => 'failed',
  );
  if (action === 'kill') await lab.daemonEnded();
  else await outcome;
  await lab.endDaemon('SIGTERM');
  await lab.failAt();
  await lab.startDaemon();

  const told = await outcome;
  const clone = (await lab.client.listGuests()).find(({ name }) => name === CLONE);
  if (action !== 'kill' && told === 'done') assert.equal(clone?.state, 'running');
  if (clone?.state === 'running') assert.deepEqual(await contentOf(lab, CLONE), saved);
  if (clone !== undefined) {
    await lab.client.stop(CLONE);
    await lab.client.undefineGuest(CLONE);
  }
  assert.deepEqual(await contentOf(lab, GUEST), present);
  assert.equal((await lab.qemuProcesses()).length, 1);
  assert.equal((await readdir(join(lab.paths.data, 'guests'))).length, 1);
}
