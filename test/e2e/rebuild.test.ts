/** The catalog is lost, and made again from what stands beside the images: proven by the content of every one of them. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { test } from 'node:test';
import type { RebuildReport } from '../../src/recovery/rebuild.ts';
import { catalogFile } from '../../src/paths.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping, checkImages, contentOf, type Content } from '../support/rules.ts';

async function loseCatalog(lab: Lab): Promise<void> {
  for (const suffix of ['', '-wal', '-shm']) await rm(catalogFile(lab.paths) + suffix, { force: true });
}

async function rebuild(lab: Lab, ...options: readonly string[]): Promise<RebuildReport> {
  const { status, stdout, stderr } = await lab.cli(['catalog', 'rebuild', '--json', ...options]);
  assert.equal(status, 0, stderr);
  return fromStored<RebuildReport>(stdout);
}

/** Of each image its state, and why. */
function told({ guests }: RebuildReport): string[] {
  return guests.flatMap(({ name, images }) =>
    images.map(
      (image) => `${name}/${image.name} ${image.state}${image.damage === null ? '' : `: ${image.damage}`}`,
    ),
  );
}

test('a tree of images, their guest while it runs, and what was decided about them come back without the catalog', async () => {
  await using lab = await Lab.create();
  const { client } = lab;
  const expected = new Map<string, Content>();
  let seed = 1;
  const save = async (name: string) => {
    seed += 1;
    expected.set(name, await changeContent(lab, 'web1', seed));
    await client.createSaveImage('web1', { name, live: true });
  };
  await using witness = await lab.running('web1', { system: 'bare' });
  await witness.fill(3, 4);
  for (const name of ['a', 'b']) await save(name);
  await client.restoreSaveImage('web1', 'a');
  await save('c');
  await client.protectSaveImage('web1', 'b');
  await client.setPolicy('web1', { onBoot: 'none', order: 7 });
  await client.addSchedule('web1', { name: 'nightly', cron: '0 3 * * *' });
  await client.deleteSaveImage('web1', 'a');
  expected.delete('a');
  const present = await changeContent(lab, 'web1', 99);
  const before = { guest: await client.getGuest('web1'), images: await client.listSaveImages('web1') };
  await lab.recordsWritten();

  const busy = await lab.cli(['catalog', 'rebuild']);
  assert.equal(busy.status, 4);
  assert.match(busy.stderr, /process \d+\) has the catalog.*end it first/s);
  await lab.endDaemon('SIGTERM');
  const healthy = await lab.cli(['catalog', 'rebuild']);
  assert.equal(healthy.status, 4);
  assert.match(healthy.stderr, /is healthy/);

  await loseCatalog(lab);
  await assert.rejects(lab.startDaemon(), /it is empty, but there are guests.*stasis catalog rebuild/s);
  const tried = await rebuild(lab, '--dry-run');
  assert.deepEqual(told(tried), ['web1/b ready', 'web1/c ready']);
  const report = await rebuild(lab);
  assert.deepEqual(told(report), told(tried));
  assert.deepEqual([report.guests[0]?.isRunning, report.leftOut, report.notes], [true, [], []]);
  await lab.startDaemon();

  assert.deepEqual(await client.getGuest('web1'), before.guest);
  assert.deepEqual(await client.listSaveImages('web1'), before.images);
  assert.deepEqual(await contentOf(lab, 'web1'), present, 'the guest that ran goes on');
  await assert.rejects(client.deleteSaveImage('web1', 'b'), { code: 'image-protected' });
  await checkHousekeeping(lab, 'web1');
  await checkImages(lab, 'web1', expected);
  await client.deleteSaveImage('web1', 'c');
  await checkHousekeeping(lab, 'web1');
});
