/** The catalog is lost, and made again from what stands beside the images: proven by the content of every one of them. */
import assert from 'node:assert/strict';
import { access, copyFile, mkdir, open, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { FoundLayers } from '../../src/recovery/found-layers.ts';
import type { RebuildReport } from '../../src/recovery/rebuild.ts';
import { catalogFile } from '../../src/paths.ts';
import { ImageTool } from '../../src/qemu/block/image-tool.ts';
import { allDrivers } from '../../src/storage/drivers.ts';
import { Lab } from '../support/lab.ts';
import { loseCatalog, loseGuestFile, rebuild } from '../support/recovery.ts';
import { changeContent, checkHousekeeping, checkImages, contentOf, type Content } from '../support/rules.ts';

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

  // Without the record of the guest, it is what its image says; while it runs, and when it has been stopped.
  const last = await changeContent(lab, 'web1', 100);
  for (const isRunning of [true, false]) {
    if (!isRunning) await client.stop('web1');
    await lab.recordsWritten();
    await lab.endDaemon('SIGTERM');
    await loseCatalog(lab);
    await loseGuestFile(lab, before.guest.uuid);
    const lost = await rebuild(lab);
    assert.deepEqual(told(lost), ['web1/b ready']);
    assert.deepEqual([lost.guests[0]?.isRunning, lost.leftOut], [isRunning, []]);
    assert.match(
      lost.guests[0]?.notes.join() ?? '',
      /no guest\.json: .*newest image has it \(b, .*Lost are its schedules/,
    );
    await lab.startDaemon();
    assert.deepEqual((await client.getGuest('web1')).schedules, []);
    if (isRunning) assert.deepEqual(await contentOf(lab, 'web1'), last, 'it goes on');
  }
  await client.start('web1');
  assert.equal((await contentOf(lab, 'web1')).disk, last.disk, 'what it is written to was found');
  await checkHousekeeping(lab, 'web1');
  await checkImages(lab, 'web1', expected);
});

test('what lost something is broken and says why, what no record knows is kept aside, and a backup has the history', async () => {
  await using lab = await Lab.create();
  const { client } = lab;
  const expected = new Map<string, Content>();
  await using witness = await lab.running('web1', { system: 'bare', disks: 1 });
  await witness.fill(3, 2);
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    expected.set(name, await changeContent(lab, 'web1', 10 + index));
    await client.createSaveImage('web1', { name, live: true });
  }
  const backup = join(lab.home, 'backup.sqlite');
  const taken = await lab.cli(['catalog', 'backup', backup, '--json']);
  assert.equal(taken.status, 0, taken.stderr);
  await client.deleteSaveImage('web1', 'a');
  expected.set('d', await changeContent(lab, 'web1', 20));
  await client.createSaveImage('web1', { name: 'd', live: true });
  const images = new Map((await client.listSaveImages('web1')).map((image) => [image.name, image]));
  await client.stop('web1');
  await lab.recordsWritten();
  await lab.endDaemon('SIGTERM');

  await truncate(images.get('b')?.memoryFile ?? '', 1 << 20);
  await utimes(images.get('d')?.disks[0]?.layer ?? '', new Date(), new Date());
  const guest = dirname(dirname(dirname(images.get('d')?.memoryFile ?? '')));
  await writeFile(join(guest, 'layers', 'disk0-strange.qcow2'), 'x');
  await mkdir(join(guest, 'images', 'half'));

  await loseCatalog(lab);
  await copyFile(backup, catalogFile(lab.paths));
  await assert.rejects(lab.startDaemon(), /older than .*guest\.json.*as if a backup had been put back/);
  const report = await rebuild(lab);
  assert.ok(report.keepsHistory);
  assert.match(report.before ?? '', /older than/);
  const [b, c, d, ...others] = told(report);
  assert.match(b ?? '', /web1\/b broken: .*memory/);
  assert.equal(c, 'web1/c ready');
  assert.match(d ?? '', /web1\/d broken: disk disk0: .* was written to since/);
  assert.deepEqual(others, []);
  assert.deepEqual(
    report.leftOut.map(({ path, reason }) => `${path.slice(guest.length)} ${reason}`).toSorted(),
    [
      '/images/half it has no manifest.json: a save or a delete was under way',
      '/layers/disk0-strange.qcow2 a layer that no record tells of, or that stands on such a one',
    ],
  );
  await lab.startDaemon();
  assert.ok((await client.listOperations()).some(({ kind, image }) => kind === 'save' && image === 'a'));
  await assert.rejects(client.restoreSaveImage('web1', 'b'), { code: 'image-damaged' });
  await assert.rejects(client.restoreSaveImage('web1', 'd'), { code: 'disk-changed' });
  await client.restoreSaveImage('web1', 'c');
  assert.deepEqual(await contentOf(lab, 'web1'), expected.get('c'));
  await client.stop('web1');

  await lab.endDaemon('SIGTERM');
  {
    await using file = await open(catalogFile(lab.paths), 'r+');
    await file.write(Buffer.alloc(65536, 0xa5), 0, 65536, 0);
  }
  await assert.rejects(lab.startDaemon(), /the catalog can't be used: .*stasis catalog rebuild/);
  const again = await lab.cli(['catalog', 'rebuild']);
  assert.equal(again.status, 0, again.stderr);
  assert.match(again.stdout, /1 guest, 3 images, 2 of them broken/);
  assert.match(again.stdout, /is now .*catalog\.sqlite\.before-/);
  await rm(join(guest, 'guest.json'));
  await lab.startDaemon();
  await lab.recordsWritten();
  await access(join(guest, 'guest.json'));
  for (const name of ['b', 'c', 'd']) await client.deleteSaveImage('web1', name);
  assert.deepEqual(await client.listSaveImages('web1'), []);
});

test('only what is called and placed like a layer is taken for one that no record knows, whatever a QEMU says', async () => {
  const imageTool = new ImageTool('qemu-img');
  const own = '/home/state/guests/u/layers';
  const layers = await FoundLayers.look({ imageTool, drivers: allDrivers(imageTool) }, [], new Set([own]));
  const id = '0123456789abcdef0123';
  for (const [path, isOne] of [
    [`${own}/root-${id}.qcow2`, true],
    [`${own}/root-${'1'.repeat(20)}.qcow2`, false],
    [`${own}/../../../root-${id}.qcow2`, false],
    [`/etc/root-${id}.raw`, false],
    ['/etc/shadow', false],
  ] as const)
    assert.equal(layers.canBe({ id, path }), isOne, path);
});
