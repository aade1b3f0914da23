/** A directory in which somebody else, whom we don't trust, makes files too. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { readOwnFile, readQemusFile, removeShared, writeOwnFile } from '../../src/qemu/process/run-files.ts';

test('what we write goes through no link, and what we read is our own, or a plain file of a limited size', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'stasis-run-files-'));
  try {
    const [file, secret] = [join(directory, 'file'), join(directory, 'secret')];
    await writeFile(secret, 'secret');
    await symlink(secret, `${file}.new`);
    await writeOwnFile(file, 'ours');
    assert.equal(await readFile(secret, 'utf8'), 'secret');
    assert.equal(await readOwnFile(file), 'ours');
    if (process.getuid?.() === 0) {
      await chown(file, 64_321, 64_321);
      assert.equal(await readOwnFile(file), undefined, "somebody else's");
    }

    assert.equal((await readQemusFile(file, 4)).toString(), 'ours');
    await truncate(file, 5);
    await assert.rejects(readQemusFile(file, 4), { code: 'qemu-failed' });
    await rm(file);
    assert.equal(await readOwnFile(file), undefined);
    await symlink(secret, file);
    assert.equal(await readOwnFile(file), undefined);
    await assert.rejects(readQemusFile(file, 100), { code: 'ELOOP' });
    await rm(file);
    await promisify(execFile)('mkfifo', [file]);
    await assert.rejects(readQemusFile(file, 100), { code: 'qemu-failed' }, 'and nobody waits for a writer');
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('such a directory is removed with what links in it lead to left alone, and a directory in it not gone into', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-run-files-'));
  try {
    const [shared, other] = [join(home, 'shared'), join(home, 'other')];
    const fill = async () => {
      for (const directory of [shared, join(shared, 'empty'), other])
        await mkdir(directory, { recursive: true });
      for (const file of [join(shared, 'file'), join(other, 'file')]) await writeFile(file, 'kept');
      await symlink(other, join(shared, 'link'));
    };
    await fill();
    await removeShared(shared);
    await assert.rejects(stat(shared), { code: 'ENOENT' });
    await removeShared(shared);

    await fill();
    await writeFile(join(shared, 'empty/not'), 'kept');
    await removeShared(shared);
    assert.deepEqual(await readdir(shared), ['empty']);
    assert.equal((await stat(shared)).mode & 0o777, 0o700);
    assert.equal(await readFile(join(other, 'file'), 'utf8'), 'kept');
  } finally {
    await rm(home, { recursive: true });
  }
});
