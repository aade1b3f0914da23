/** Chains of layers get short again: by hand, in the background, and never in anybody's way. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import type { Operation } from '../../src/client/index.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping, checkImages, contentOf, type Content } from '../support/rules.ts';

/** Takes live images, each of another content. */
async function grow(lab: Lab, names: readonly string[]): Promise<Map<string, Content>> {
  const contents = new Map<string, Content>();
  for (const [index, name] of names.entries()) {
    contents.set(name, await changeContent(lab, 'web1', 300 + index));
    await lab.client.createSaveImage('web1', { name, live: true });
  }
  return contents;
}

async function depths(lab: Lab): Promise<number[]> {
  return (await lab.client.getGuest('web1')).disks.map(({ layers }) => layers);
}

/** Resolves with the first operation of this kind of which it is told that it is in this state. */
async function told(lab: Lab, kind: string, state: string): Promise<Operation> {
  for await (const { type, action, message, operation } of lab.client.events({ since: 0 }))
    if (type === 'operation' && action === state && message.startsWith(`${kind} `))
      return lab.client.getOperation(operation ?? '');
  throw new Error('the events ended');
}

test('a chain is shortened while the guest writes; its images stay what they are, and go as always', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare' });
  await witness.fill(1, 4);
  const contents = await grow(lab, ['a', 'b', 'c']);
  const now = await changeContent(lab, 'web1', 399);
  assert.deepEqual(await depths(lab), [4, 4]);

  const compacted = await lab.cli(['disk', 'compact', 'web1', '--disk', 'disk0']);
  assert.equal(compacted.status, 0, compacted.stderr);
  assert.match(compacted.stdout, /a chain of 4 layers became one of 2/);
  assert.deepEqual(await depths(lab), [2, 4]);
  await lab.client.compactDisks('web1');
  assert.deepEqual(await depths(lab), [2, 2]);
  assert.deepEqual(await contentOf(lab, 'web1'), now);
  // QEMU has nothing open any more of what lies between: it can be merged and removed beside the running guest.
  await lab.client.deleteSaveImage('web1', 'b');
  await lab.client.deleteSaveImage('web1', 'c');
  await checkHousekeeping(lab, 'web1');
  assert.deepEqual(await contentOf(lab, 'web1'), now);
  await lab.client.createSaveImage('web1', { name: 'now', live: true });
  await checkImages(lab, 'web1', new Map([...contents, ['now', now]]));

  await lab.client.stop('web1');
  await lab.client.compactDisks('web1');
  assert.ok(Math.max(...(await depths(lab))) <= 2, 'also of a stopped guest');
  await checkImages(lab, 'web1', contents);
  await checkHousekeeping(lab, 'web1');
});

test('in the background chains are kept at the depth of the settings, and a save goes first', async () => {
  await using lab = await Lab.create();
  await lab.endDaemon('SIGTERM');
  await mkdir(lab.paths.config, { recursive: true });
  const settle = (rate: string) =>
    writeFile(
      `${lab.paths.config}/stasis.yaml`,
      `disks: {compactAboveDepth: 3, compactAfterSeconds: 0, compactBytesPerSecond: ${rate}}\n`,
    );
  await settle('64KiB');
  await lab.startDaemon();
  await using witness = await lab.running('web1', { disks: 1 });
  await witness.fill(1, 4);
  const contents = await grow(lab, ['a']);
  await witness.write('vda', 32, 8, 1); // what nobody writes again has to be copied
  for (const [name, content] of await grow(lab, ['b', 'c'])) contents.set(name, content);
  // Over depth now: it copies, at a rate that takes minutes.
  const running = await told(lab, 'compact', 'running');
  contents.set('d', await changeContent(lab, 'web1', 310));
  await lab.client.createSaveImage('web1', { name: 'd', live: true });
  const gaveWay = await lab.client.getOperation(running.id);
  assert.equal(gaveWay.state, 'cancelled');
  assert.match(gaveWay.error?.message ?? '', /gave way/);

  await lab.endDaemon('SIGKILL');
  await settle('512MiB');
  await lab.startDaemon();
  const done = await told(lab, 'compact', 'done');
  assert.equal(done.state, 'done', 'the next daemon goes on with it');
  assert.deepEqual(await depths(lab), [2]);
  await checkImages(lab, 'web1', contents);
  await checkHousekeeping(lab, 'web1');
});

test('a disk that has no chain is told so', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running('web1', { system: 'bare', disks: 1 });
  await witness.fill(1, 4);
  const nothing = await lab.cli(['disk', 'compact', 'web1']);
  assert.equal(nothing.status, 0);
  assert.match(nothing.stdout, /skipped.*there is nothing between/);
  const nobody = await lab.cli(['disk', 'compact', 'web1', '--disk', 'swap']);
  assert.equal(nobody.status, 2);
  assert.match(nobody.stderr, /no disk "swap".*disk0/);
});
