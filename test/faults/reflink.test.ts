/**
 * Faults at each step of work on disks that are copied: where it differs from that on overlays, and what only they have,
 * a copy that takes the place of the user's own file.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, test } from 'node:test';
import { scenarioNamed, walkFailpoints } from '../support/failpoint-walk.ts';
import { kindsNamed } from '../support/grounds.ts';
import { Lab } from '../support/lab.ts';
import { besideDisk, changeContent, REGION } from '../support/rules.ts';

const GUEST = 'web1';
const [XFS, BTRFS] = kindsNamed('reflinks of qcow2 on XFS, reflinks of raw files on Btrfs');
assert.ok(XFS && BTRFS);

const IN_PAUSE = ['pause:before-copy', 'pause:before-switch'];
const isCampaign = process.env['STASIS_FAULTS'] === 'all';
walkFailpoints(
  [
    scenarioNamed('live save', {
      steps: ['verify', 'seal'],
      inPause: IN_PAUSE,
      actions: isCampaign ? ['kill', 'guest', 'error'] : ['kill'],
    }),
    scenarioNamed('restore', {
      name: 'restore of an image that goes with it',
      loses: 'target',
      run: ({ lab }) => lab.client.restoreSaveImage(GUEST, 'target', { delete: true }),
      steps: ['load', 'delete-image'],
      actions: isCampaign ? ['kill', 'guest', 'error'] : ['kill'],
    }),
  ],
  XFS,
);
walkFailpoints(
  [
    scenarioNamed('save of a guest on a copy, which becomes the file of the user', {
      steps: ['replace-layer'],
      actions: ['kill'],
    }),
  ],
  BTRFS,
);

describe('undefine, reflinks of raw files on Btrfs', { skip: BTRFS.skip }, () => {
  const points = ['replace:moved', 'forget-guest:before'];
  if (isCampaign) points.push('remove-memory:before', 'replace-layer:before', 'remove-layer:before');
  for (const point of points)
    test(`kill at ${point}`, { timeout: 300_000 }, () => undefineWithFault(`undefine/${point}=kill`));
});

/** The guest is gone afterwards, and what it wrote on a copy is in the file that the user brought. */
async function undefineWithFault(failpoint: string): Promise<void> {
  // From the start on: a daemon that is started anew would itself collect what a stop leaves.
  await using lab = await Lab.on(BTRFS ?? assert.fail(), {
    STASIS_FAILPOINT: `${failpoint},collect/record:after=error`,
  });
  const { client } = lab;
  {
    await using witness = await lab.running(GUEST, { system: 'bare' });
    await witness.fill(1, 8);
  }
  await client.createSaveImage(GUEST, { name: 'a', live: true });
  await client.restoreSaveImage(GUEST, 'a');
  const { disk } = await changeContent(lab, GUEST, 3);
  const { disks, uuid } = await client.getGuest(GUEST);
  assert.ok(disks.every(({ head, path }) => head !== path));
  const brought = await lab.disksOf(GUEST);
  await client.stop(GUEST);
  const undefining = client.undefineGuest(GUEST, { deleteImages: true });
  await lab.daemonEnded();
  await lab.startDaemon();
  await undefining; // it was committed, so it is finished
  for (const { id, state } of await client.listOperations())
    if (state === 'running') await client.followOperation(id);

  assert.deepEqual(await client.listGuests(), []);
  assert.deepEqual(await lab.files(), []);
  for (const { path } of disks) assert.ok(!existsSync(dirname(besideDisk(path, uuid))));
  await lab.defineOn('again', brought, { system: 'bare' });
  await client.start('again');
  await using witness = await lab.witness('again');
  assert.equal((await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib)).checksum, disk);
}
