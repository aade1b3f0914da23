/** Disks that no image holds: media are the same at a restore or it is refused, excluded disks are used as they are. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Lab, testBoot } from '../support/lab.ts';

const GUEST = 'web1';
const run = promisify(execFile);

test('a read-only medium must be the same when an image is restored; an excluded disk is used as it is', async () => {
  await using lab = await Lab.create();
  const [own, cd, scratch] = ['own.qcow2', 'cd.iso', 'scratch.raw'].map((name) => join(lab.home, name));
  assert.ok(own !== undefined && cd !== undefined && scratch !== undefined);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', own, '64M']);
  await run('qemu-img', ['create', '-q', '-f', 'raw', scratch, '64M']);
  const content = randomBytes(3 << 20);
  await writeFile(cd, content);
  const disks = [
    { name: 'own', path: own, format: 'qcow2' },
    { name: 'cd', path: cd, format: 'raw', readonly: true },
    { name: 'scratch', path: scratch, format: 'raw', capture: false },
  ];
  await lab.define(GUEST, { disks: 0, extra: { boot: testBoot('hammer=off'), disks } });
  await lab.client.start(GUEST);
  const before = await use(lab, 1);
  const image = await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  const sha256 = createHash('sha256').update(content).digest('hex');
  assert.deepEqual(image.media, [
    { disk: 'cd', path: cd, kind: 'read-only', sha256 },
    { disk: 'scratch', path: scratch, kind: 'excluded', sha256: null },
  ]);
  const after = await use(lab, 2);

  await writeFile(cd, Buffer.concat([content.subarray(0, -1), Buffer.from([(content.at(-1) ?? 0) ^ 1])]));
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'a'), {
    code: 'disk-changed',
    message: new RegExp(`disk cd: ${cd} is not the medium .* its SHA-256 is ${sha256}`),
  });
  await rename(cd, `${cd}.away`);
  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'a'), { code: 'disk-missing' });
  assert.equal((await lab.client.getGuest(GUEST)).state, 'running', 'it was not touched');

  await writeFile(cd, content); // another file, with another date, of the same content
  await lab.client.restoreSaveImage(GUEST, 'a');
  const [restore] = await lab.client.listOperations();
  assert.match(restore?.warnings.join() ?? '', /disk scratch .* no part of the image/);
  await using witness = await lab.witness(GUEST);
  const own16 = await witness.read('vda', 16, 2);
  const scratch16 = await witness.read('vdc', 16, 2);
  assert.deepEqual([own16.checksum, scratch16.checksum], [before.own, after.scratch]);
  assert.equal((await witness.read('vdb', 0, 3)).checksum, before.cd);
  assert.deepEqual(await readFile(cd), content);

  await assert.rejects(lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'web2' }), {
    code: 'disk-in-use',
    message: /disk scratch .* belongs to guest web1/,
  });
});

test('a clone has the same medium; a disk that another guest has is refused with its name', async () => {
  await using lab = await Lab.create();
  const cd = join(lab.home, 'cd.iso');
  await writeFile(cd, randomBytes(1 << 20));
  const medium = { name: 'cd', path: cd, format: 'raw', bus: 'sata', readonly: true };
  const own = join(lab.home, 'own.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', own, '64M']);
  const disks = [{ name: 'own', path: own, format: 'qcow2' }, medium];
  await using first = await lab.running(GUEST, { disks: 0, extra: { disks } });
  await first.close();
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'web2' });
  await using _ = await lab.witness('web2');

  const define = (...others: unknown[]) => lab.define('web3', { disks: 0, extra: { disks: others } });
  await assert.rejects(define({ name: 'x', path: own, format: 'qcow2' }), {
    code: 'disk-in-use',
    message: /already belongs to guest web1/,
  });
  const { head } = (await lab.client.getGuest(GUEST)).disks[0] ?? assert.fail();
  await assert.rejects(define({ name: 'x', path: head, format: 'qcow2' }), {
    code: 'disk-in-use',
    message: /is a layer of guest web1/,
  });
  await assert.rejects(define({ name: 'x', path: cd, format: 'raw', shareable: true }), {
    code: 'unsupported',
    message: /disk x of guest web3 is shareable/,
  });
  await define(medium);
});

/** Writes to both writable disks and tells what is there then. */
async function use(lab: Lab, seed: number): Promise<{ own: string; scratch: string; cd: string }> {
  await using witness = await lab.witness(GUEST);
  const own = await witness.write('vda', 16, 2, seed);
  const scratch = await witness.write('vdc', 16, 2, seed);
  const cd = await witness.read('vdb', 0, 3);
  return { own: own.checksum, scratch: scratch.checksum, cd: cd.checksum };
}
