/** What a save needs and what a deletion frees, held against a real file system. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { StasisError } from '../../src/client/index.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping } from '../support/rules.ts';

const run = promisify(execFile);
const MIB = 1024 ** 2;
/** Catalog, logs and the guest's own writes go on meanwhile. */
const SLACK_BYTES = 2 * MIB;

test(
  'deleting an image frees what was told, and a save that does not fit tells what would make room',
  { skip: process.getuid?.() !== 0 && 'mounting needs root' },
  async () => {
    const mount = await mkdtemp(join(tmpdir(), 'stasis-space-'));
    await run('mount', ['-t', 'tmpfs', '-o', 'size=600M', 'tmpfs', mount]);
    const freeBytes = async () => {
      const { bavail, bsize } = await statfs(mount);
      return bavail * bsize;
    };
    try {
      await using lab = await Lab.create(mount);
      {
        await using witness = await lab.running('web1', { disks: 1 });
        await witness.fill(1, 32);
      }
      for (const [index, name] of ['first', 'second', 'third'].entries()) {
        await changeContent(lab, 'web1', 400 + index);
        await lab.client.createSaveImage('web1', { name, live: true });
      }
      // Another branch, so that "second" is a leaf that nothing stands on once the guest has left it.
      await lab.client.restoreSaveImage('web1', 'first', { method: 'eager' });

      await run('fallocate', ['-l', String((await freeBytes()) - 90 * MIB), join(mount, 'ballast')]);
      const failure = await lab.client.createSaveImage('web1', { name: 'big', live: true }).then(
        () => assert.fail('it can not fit'),
        (error: unknown) => StasisError.from(error),
      );
      assert.equal(failure.code, 'no-space');
      const { path, neededBytes, freeBytes: toldFreeBytes, wouldFree } = failure.details ?? {};
      assert.equal(path, mount, 'the file system is named');
      assert.ok(Number(neededBytes) > Number(toldFreeBytes));
      assert.ok(Math.abs(Number(toldFreeBytes) - 90 * MIB) < 8 * MIB);
      assert.ok(Array.isArray(wouldFree) && wouldFree.length === 3, 'and what would make room');
      assert.match(failure.message, /web1 \/ (first|second|third) would free \d+ MiB/);
      await rm(join(mount, 'ballast'));

      for (const name of ['third', 'second', 'first']) {
        const image = await lab.client.getSaveImageInfo('web1', name);
        assert.ok(image.freesBytes > 32 * MIB && image.freesBytes <= image.freesAtMostBytes);
        const before = await freeBytes();
        await lab.client.deleteSaveImage('web1', name);
        const freed = (await freeBytes()) - before;
        const told = `${name}: ${freed} freed, told ${image.freesBytes} to ${image.freesAtMostBytes}`;
        assert.ok(freed >= image.freesBytes - SLACK_BYTES, told);
        assert.ok(freed <= image.freesAtMostBytes + SLACK_BYTES, told);
      }
      await checkHousekeeping(lab, 'web1');
    } finally {
      await run('umount', [mount]);
      await rm(mount, { recursive: true, force: true });
    }
  },
);
