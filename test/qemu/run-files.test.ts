/** A directory in which somebody else, whom we don't trust, makes files too. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chown, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { readOwnFile, readQemusFile, writeOwnFile } from '../../src/qemu/process/run-files.ts';

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
