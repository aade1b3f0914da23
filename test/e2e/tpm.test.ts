/** The TPM of a guest is of the instant of its image: what it stores for ever, and its registers, which a start empties. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { findTpmProcesses, waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { Lab } from '../support/lab.ts';
import type { TpmContent, Witness } from '../support/witness.ts';

const GUEST = 'web1';

test('a TPM is captured, restored and cloned with the rest, and ends with its guest', async () => {
  await using lab = await Lab.create();
  await using first = await lab.running(GUEST, { disks: 1, extra: { tpm: true } });
  const saved = await first.changeTpm(1);
  assert.equal(saved.stored, 1);
  await first.close();
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  const later = await ask(lab, GUEST, (witness) => witness.changeTpm(2));
  assert.notDeepEqual(later, saved, 'it goes on after a live save');
  await lab.client.createSaveImage(GUEST, { name: 'b', live: true });

  for (const method of ['mapped', 'lazy', 'eager'] as const) {
    await lab.client.restoreSaveImage(GUEST, 'a', { method });
    assert.deepEqual(await ask(lab, GUEST), saved, method);
    assert.equal((await tpms(lab)).length, 1);
  }
  await lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'clone' });
  assert.deepEqual(await ask(lab, 'clone'), saved);
  assert.equal((await tpms(lab)).length, 2);
  await ask(lab, 'clone', (witness) => witness.changeTpm(7));
  assert.deepEqual(await ask(lab, GUEST), saved, 'each has its own');
  await lab.client.stop('clone');

  // Another daemon finds it as the last one left it; saved and stopped, it goes on where it was.
  await lab.client.restoreSaveImage(GUEST, 'b');
  await lab.endDaemon();
  await lab.startDaemon();
  assert.deepEqual(await ask(lab, GUEST), later);
  await lab.client.createSaveImage(GUEST);
  assert.deepEqual(await tpms(lab), []);
  await lab.client.start(GUEST);
  assert.deepEqual(await ask(lab, GUEST), later);

  // A start from the disks: registers are empty, what was stored is there.
  await lab.client.stop(GUEST);
  await lab.client.start(GUEST, { fresh: true });
  assert.deepEqual(await ask(lab, GUEST), { register: '0'.repeat(64), stored: 2 });
  const { uuid } = await lab.client.getGuest(GUEST);
  assert.equal(
    (await readdir(join(lab.paths.data, 'guests', uuid, 'tpm'))).length,
    1,
    'nothing is left over',
  );
  await lab.client.stop(GUEST);
  assert.deepEqual(await tpms(lab), []);
});

test('a guest whose TPM has died is not saved, runs on, and has it again after a restore', async () => {
  await using lab = await Lab.create();
  await using first = await lab.running(GUEST, { disks: 1, extra: { tpm: true } });
  const saved = await first.changeTpm(1);
  await first.close();
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  const [pid = 0] = await tpms(lab);
  process.kill(pid, 'SIGKILL');
  await waitForEnd(pid, 10_000);
  await assert.rejects(lab.client.createSaveImage(GUEST, { name: 'b', live: true }), {
    code: 'not-capturable',
    message: /swtpm, the process that is its TPM, has ended/,
  });
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  await lab.client.restoreSaveImage(GUEST, 'a');
  assert.deepEqual(await ask(lab, GUEST), saved);
});

test('the older machine has a TPM too', async () => {
  await using lab = await Lab.create();
  await using first = await lab.running(GUEST, { disks: 1, extra: { tpm: true, machine: 'pc' } });
  const saved = await first.changeTpm(1);
  await first.close();
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await ask(lab, GUEST, (witness) => witness.changeTpm(2));
  await lab.client.restoreSaveImage(GUEST, 'a');
  assert.deepEqual(await ask(lab, GUEST), saved);
});

test('a restore that fails leaves the TPM of the guest as it is, and no other', async () => {
  await using lab = await Lab.create();
  await using first = await lab.running(GUEST, { disks: 1, extra: { tpm: true } });
  await first.changeTpm(1);
  await first.close();
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  const now = await ask(lab, GUEST, (witness) => witness.changeTpm(2));
  for (const failpoint of ['load:after=error', 'load:after=kill', 'commit:after=kill']) {
    await lab.failAt(`restore/${failpoint}`);
    const outcome = lab.client.restoreSaveImage(GUEST, 'a').then(
      () => 'done',
      () => 'failed',
    );
    if (failpoint.endsWith('kill')) await lab.daemonEnded();
    else assert.equal(await outcome, 'failed');
    await lab.endDaemon('SIGTERM');
    await lab.failAt();
    await lab.startDaemon();
    await outcome;
    const expected = failpoint.startsWith('commit') ? 1 : now.stored;
    assert.equal((await ask(lab, GUEST)).stored, expected, failpoint);
    assert.equal((await tpms(lab)).length, 1, failpoint);
    const { uuid } = await lab.client.getGuest(GUEST);
    assert.equal((await readdir(join(lab.paths.data, 'guests', uuid, 'tpm'))).length, 1, failpoint);
  }
});

async function ask(
  lab: Lab,
  guest: string,
  question: (witness: Witness) => Promise<TpmContent> = (witness) => witness.tpm(),
): Promise<TpmContent> {
  await using witness = await lab.witness(guest);
  return await question(witness);
}

/** The processes of all TPMs of this home. */
async function tpms(lab: Lab): Promise<number[]> {
  const root = join(lab.paths.run, 'guests');
  const found = await Promise.all((await readdir(root)).map((name) => findTpmProcesses(join(root, name))));
  return found.flat();
}
