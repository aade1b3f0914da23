/** Live saves and their pause: predicted before, bounded on demand, recorded after. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { DIRTIER_BYTES, dirtierRom } from '../qemu/dirtier.ts';
import { StasisError } from '../../src/errors.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping, contentOf } from '../support/rules.ts';

const GUEST = 'web1';

test('a live save is predicted without being made, and the image tells what the pause was for', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running(GUEST);
  const before = await lab.files();
  const first = await lab.cli(['save', GUEST, '--live', '--dry-run']);
  assert.match(first.stdout, /precopy ✔ .*by the model alone/);
  assert.match(first.stdout, /nothing was saved/);
  assert.deepEqual(await lab.files(), before);
  assert.deepEqual(await lab.client.listSaveImages(GUEST), []);

  const image = await lab.client.createSaveImage(GUEST, { name: 'a', live: true, method: 'precopy' });
  const { stopMs = 0, disksMs = 0, memoryMs = 0, resumeMs = 0 } = image.pauseParts ?? {};
  const sumMs = stopMs + disksMs + memoryMs + resumeMs;
  assert.ok(
    Math.abs(sumMs - (image.pauseMs ?? 0)) < 2,
    `the parts, ${sumMs} ms, are all of ${image.pauseMs} ms`,
  );
  assert.ok((image.predictedPauseMs ?? 0) > 0);
  assert.ok((image.bytesWritten ?? 0) > 1 << 20);
  assert.equal(image.maxPauseMs, null);

  const next = await lab.client.predictSave(GUEST);
  assert.equal(next.methods.find(({ method }) => method === 'precopy')?.basedOn, 1);
  await lab.client.deleteSaveImage(GUEST, 'a');
  assert.equal((await lab.client.predictSave(GUEST)).methods[0]?.basedOn, 1, 'experience outlives its image');
});

test('both live methods hold memory and disks of one instant, and a mapped guest says why only one is left', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, { cmdline: 'interval=1' });
  await witness.fill(3, 24);
  await witness.dirty(50);
  for (const method of ['background', 'precopy'] as const) {
    const image = await lab.client.createSaveImage(GUEST, { name: method, live: true, method });
    assert.equal(image.method, method);
  }
  await witness.dirty(0);
  await lab.client.createSaveImage(GUEST, { name: 'still', live: true, method: 'background' });
  const still = await contentOf(lab, GUEST);
  await changeContent(lab, GUEST, 7);
  for (const name of ['background', 'precopy', 'still']) {
    await lab.client.restoreSaveImage(GUEST, name);
    const restored = await contentOf(lab, GUEST);
    if (name === 'still') assert.equal(restored.memory, still.memory);
  }
  await assert.rejects(lab.client.createSaveImage(GUEST, { live: true, method: 'background' }), {
    code: 'unsupported',
    message: /mapped from an image.*--eager/,
  });
  await lab.client.createSaveImage(GUEST, { name: 'again', live: true });
  await lab.client.restoreSaveImage(GUEST, 'again', { method: 'eager' });
  await lab.client.createSaveImage(GUEST, { name: 'once-more', live: true, method: 'background' });
  await checkHousekeeping(lab, GUEST);
});

test('a pause that can not be kept is refused, before the guest is touched', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running(GUEST);
  const request = { name: 'a', live: true, maxPauseMs: 0.5 };
  await assert.rejects(lab.client.createSaveImage(GUEST, request), {
    code: 'pause-too-long',
    message: /within 0\.5 ms.*precopy about.*background about/,
  });
  assert.equal((await lab.cli(['save', GUEST, '--live', '--dry-run', '--max-pause', '1'])).status, 4);
  for (const wrong of [{ maxPauseMs: 5 }, { method: 'precopy' as const }])
    await assert.rejects(lab.client.createSaveImage(GUEST, wrong), { code: 'invalid-request' });
  assert.equal((await lab.cli(['save', GUEST, '--dry-run'])).status, 2);
  assert.deepEqual(await lab.client.listSaveImages(GUEST), []);
  const image = await lab.client.createSaveImage(GUEST, { ...request, maxPauseMs: 60_000 });
  assert.equal(image.maxPauseMs, 60_000);
  await checkHousekeeping(lab, GUEST);
});

test('a guest that turns out busier than it looked is captured in the background, or not at all, and runs on', async () => {
  await using lab = await Lab.create();
  const rom = join(lab.home, 'busy.rom');
  await writeFile(rom, dirtierRom(false));
  await lab.client.defineGuest({
    name: GUEST,
    memory: '64MiB',
    accelerator: 'tcg',
    qemu: { args: ['-bios', rom] },
  });
  await lab.client.start(GUEST);
  // Once it has written all that it writes to for the first time, a look at the contents shows nothing.
  const looksCalm = async () => {
    const { residentBytes, dirtyBytesPerSecond } = await lab.client.predictSave(GUEST);
    return residentBytes >= DIRTIER_BYTES && dirtyBytesPerSecond === 0;
  };
  while (!(await looksCalm()));
  assert.equal((await lab.client.predictSave(GUEST)).method, 'precopy');
  // On a busy host the guest may have stood still for a pass, and was not so busy then.
  const isTooBusy = async () =>
    (await lab.client.createSaveImage(GUEST, { name: 'a', live: true })).method === 'background';
  while (!(await isTooBusy())) await lab.client.deleteSaveImage(GUEST, 'a');
  const [save] = (await lab.client.listOperations()).filter(({ kind }) => kind === 'save');
  assert.match(save?.warnings.join() ?? '', /dirties memory faster.*in the background instead/);

  // Mapped from its image it can't be: then it is refused, or takes as long as it takes.
  await lab.client.restoreSaveImage(GUEST, 'a');
  const inTime = () => lab.client.createSaveImage(GUEST, { name: 'b', live: true, maxPauseMs: 20 });
  const refusal = async () =>
    inTime().then(
      () => undefined,
      (error: unknown) => StasisError.from(error),
    );
  let refused = await refusal();
  for (; refused === undefined; refused = await refusal()) await lab.client.deleteSaveImage(GUEST, 'b');
  assert.equal(refused.code, 'pause-too-long');
  // On a busy host the prediction alone may say so.
  assert.match(refused.message, /dirties memory faster|within 20 ms of pause now/);
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running');
  assert.deepEqual(
    (await lab.client.listSaveImages(GUEST)).map(({ name }) => name),
    ['a'],
  );
  assert.equal((await lab.client.createSaveImage(GUEST, { name: 'b', live: true })).method, 'precopy');
  await checkHousekeeping(lab, GUEST);
});

test('a guest whose mapped memory can not be read any more is a crashed one that says so', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running(GUEST);
  const { memoryFile } = await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.restoreSaveImage(GUEST, 'a');
  const since = Math.max(...(await lab.client.listEvents()).map(({ id }) => id));
  await writeFile(memoryFile, ''); // what a disk that lost its sectors would do to the mapping
  for await (const event of lab.client.events({ guest: GUEST, since })) if (event.action === 'crashed') break;
  assert.match((await lab.client.getGuest(GUEST)).stateReason ?? '', /SIGBUS.*memory file.*--eager/);
});

const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages';

test('a guest on huge pages is saved and restored on huge pages', async (context) => {
  if (process.getuid?.() !== 0 || !existsSync(POOL))
    return context.skip('setting huge pages aside needs root');
  const before = Number(await readFile(POOL, 'utf8'));
  await writeFile(POOL, String(before + 2 * 64));
  try {
    if (Number(await readFile(POOL, 'utf8')) < before + 2 * 64)
      return context.skip('memory is too fragmented');
    await hugePages();
  } finally {
    await writeFile(POOL, String(before));
  }
});

async function hugePages(): Promise<void> {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, { extra: { memory: { size: '128MiB', hugepages: true } } });
  await witness.fill(3, 24);
  const saved = await changeContent(lab, GUEST, 1);
  for (const method of ['precopy', 'background'] as const)
    await lab.client.createSaveImage(GUEST, { name: method, live: true, method });
  assert.equal((await lab.client.predictSave(GUEST)).hostPageBytes, 2 * 1024 ** 2);
  await changeContent(lab, GUEST, 2);
  for (const name of ['precopy', 'background']) {
    await lab.client.restoreSaveImage(GUEST, name);
    assert.deepEqual(await contentOf(lab, GUEST), saved);
  }
  assert.match(
    await readFile(`/proc/${(await lab.client.getGuest(GUEST)).pid}/smaps`, 'utf8'),
    /(Shared|Private)_Hugetlb: +[1-9]/,
  );
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'precopy', { method: 'mapped' }), {
    code: 'unsupported',
    message: /huge pages/,
  });
  await assert.rejects(lab.define('large', { extra: { memory: { size: '1MiB', hugepages: true } } }), {
    code: 'invalid-definition',
  });
  await lab.define('many', { extra: { memory: { size: '64GiB', hugepages: '2MiB' } } });
  await assert.rejects(lab.client.start('many'), { code: 'no-memory', message: /nr_hugepages/ });
}
