/** A TPM that can't store what it has to fails from then on. What is captured of it then, no QEMU loads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrailDisk, noFrailDisk } from '../support/frail-disk.ts';
import { Lab } from '../support/lab.ts';
import { checkHousekeeping } from '../support/rules.ts';

const GUEST = 'web1';

test(
  'a guest whose TPM has failed on a full disk is not saved before it is reset',
  { skip: noFrailDisk() },
  async () => {
    await using disk = await FrailDisk.open(512, 'ext4');
    await using lab = await Lab.create(disk.directory);
    const { client } = lab;
    await lab.define(GUEST, { system: 'bare', disks: 0, extra: { tpm: true } });
    await client.start(GUEST);
    await disk.fill(0);
    await reset(lab); // at which a TPM writes
    await disk.free();
    await assert.rejects(client.createSaveImage(GUEST, { name: 'a', live: true }), {
      code: 'not-capturable',
      message: /TPM of guest web1 has failed .*Reset the guest/,
    });
    assert.deepEqual(await client.listSaveImages(GUEST), []);
    await checkHousekeeping(lab, GUEST);
    assert.equal((await lab.runDirectories()).length, 1, 'what it was tried with is gone');

    await reset(lab);
    await using witness = await lab.witness(GUEST);
    const { checksum } = await witness.fill(1, 1);
    await client.createSaveImage(GUEST, { name: 'b', live: true });
    await client.restoreSaveImage(GUEST, 'b');
    await using again = await lab.witness(GUEST);
    assert.equal((await again.checksum()).checksum, checksum);
  },
);

/** Resolves when the guest has begun anew, which is after its firmware has had its TPM begin. */
async function reset(lab: Lab): Promise<void> {
  await lab.client.reset(GUEST);
  await using _ = await lab.witness(GUEST);
}
