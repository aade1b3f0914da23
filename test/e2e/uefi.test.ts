/**
 * Guests with UEFI: the variables are of the instant of their image, in the memory of the firmware (which the running
 * guest asks) and on their disk (which the firmware reads at a start).
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { findFirmware } from '../../src/qemu/build/firmware.ts';
import { Lab, testBoot } from '../support/lab.ts';

const run = promisify(execFile);
const GUEST = 'web1';

test('variables are captured, restored and cloned with the rest, and gone with the guest', async () => {
  await using lab = await Lab.create();
  await using first = await lab.running(GUEST, { disks: 1, memory: '256MiB', extra: { firmware: 'uefi' } });
  await first.setVariable(1);
  await first.close();
  const image = await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  assert.deepEqual(image.disks.map(({ name }) => name).toSorted(), ['disk0', 'uefi-vars']);
  await set(lab, GUEST, 2);
  await lab.client.createSaveImage(GUEST, { name: 'b', live: true });

  for (const method of ['lazy', 'mapped'] as const) {
    await lab.client.restoreSaveImage(GUEST, 'a', { method });
    assert.equal(await get(lab, GUEST), 1, method);
  }
  await lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'clone' });
  assert.equal(await get(lab, 'clone'), 1);
  await set(lab, 'clone', 7);
  await set(lab, GUEST, 3);
  assert.equal(await get(lab, 'clone'), 7, 'each has its own');

  // From the disk alone: of a restored guest that wrote no variable.
  await lab.client.restoreSaveImage(GUEST, 'a');
  await lab.client.stop(GUEST);
  await lab.client.start(GUEST, { fresh: true });
  assert.equal(await get(lab, GUEST), 1);
  await lab.client.deleteSaveImage(GUEST, 'a');
  await lab.client.restoreSaveImage(GUEST, 'b');
  assert.equal(await get(lab, GUEST), 2);

  for (const guest of ['clone', GUEST]) {
    await lab.client.stop(guest);
    await lab.client.undefineGuest(guest, { deleteImages: true });
  }
  await lab.recordsWritten();
  assert.deepEqual(await readdir(join(lab.paths.data, 'guests')), []);
});

test("secure boot's firmware, on the user's own variables, which stay when the guest goes", async () => {
  await using lab = await Lab.create();
  const { template } = await findFirmware({ machine: 'pc-q35-10.0', secureBoot: false });
  const vars = join(lab.home, 'vars.fd');
  await copyFile(template.path, vars); // without keys nothing is refused
  const firmware = { type: 'uefi', secureBoot: true, vars };
  await using first = await lab.running(GUEST, { disks: 1, memory: '256MiB', extra: { firmware } });
  await first.setVariable(1);
  await first.close();
  await lab.client.createSaveImage(GUEST);
  await lab.client.start(GUEST);
  assert.equal(await get(lab, GUEST), 1);
  await set(lab, GUEST, 2);
  await lab.client.stop(GUEST);
  await lab.client.undefineGuest(GUEST);
  assert.ok(existsSync(vars), "the user's own file");
  assert.ok(!(await readFile(vars)).equals(await readFile(template.path)), 'with what the guest wrote');
});

test('with enrolled keys a program that nobody signed is refused, in a clone as well', async () => {
  await using lab = await Lab.create();
  const disk = join(lab.home, 'boot.qcow2');
  await makeBootDisk(lab, disk);
  await lab.client.defineGuest({
    ...{ name: GUEST, memory: '256MiB', accelerator: 'tcg', firmware: { type: 'uefi', secureBoot: true } },
    disks: [{ name: 'disk0', path: disk, format: 'qcow2' }],
  });
  await lab.client.start(GUEST);
  await sees(lab, GUEST, REFUSED);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.stop(GUEST);
  await lab.client.restoreSaveImage(GUEST, 'a', { asNewGuest: 'clone' });
  // Its keys are in the variables of the image; its machine, which has refused already, is at a menu.
  await lab.client.stop('clone');
  await lab.client.start('clone', { fresh: true });
  await sees(lab, 'clone', REFUSED);
});

const REFUSED = /failed to load Boot\w+ .*: (Access Denied|Security Violation)/;

/** A disk whose EFI program is the test guest's kernel, without the signature that it comes with. */
async function makeBootDisk(lab: Lab, disk: string): Promise<void> {
  const programs = join(lab.home, 'esp/EFI/BOOT');
  await mkdir(programs, { recursive: true });
  const kernel = await readFile(testBoot().kernel);
  // "PE Format", Optional Header Data Directories: the fifth of a PE32+ image is the certificate table.
  kernel.fill(0, certificateTable(kernel), certificateTable(kernel) + 8);
  await writeFile(join(programs, 'BOOTX64.EFI'), kernel);
  // QEMU shows a directory as a FAT file system.
  await run('qemu-img', ['convert', '-O', 'qcow2', `fat:${join(lab.home, 'esp')}`, disk]);
}

const certificateTable = (image: Buffer) => image.readUInt32LE(0x3c) + 24 + 112 + 4 * 8;

/** Waits until the firmware has said that on the serial line, and fails when the program runs instead. */
async function sees(lab: Lab, guest: string, wanted: RegExp): Promise<void> {
  const line = await lab.client.openConsole(guest);
  try {
    let said = '';
    for await (const part of line) {
      said += String(part);
      assert.doesNotMatch(said, /starting Boot\w+ "UEFI Misc Device"/, 'it runs');
      if (wanted.test(said)) return;
    }
    assert.fail(`the console ended after: ${said}`);
  } finally {
    line.destroy();
  }
}

test('firmware that is not there, or not for that machine, is refused with what to install', async () => {
  await using lab = await Lab.create();
  const extra = { machine: 'pc', firmware: { type: 'uefi', secureBoot: true } };
  await assert.rejects(lab.define(GUEST, { disks: 0, extra }), {
    code: 'unsupported',
    message: /no UEFI firmware with Secure Boot for machine pc-i440fx-.* install ovmf/,
  });
  await assert.rejects(lab.define(GUEST, { disks: 0, extra: { firmware: { type: 'bios', vars: '/x' } } }), {
    code: 'invalid-definition',
  });
});

async function get(lab: Lab, guest: string): Promise<number> {
  await using witness = await lab.witness(guest);
  const { mismatches } = await witness.status();
  assert.equal(mismatches, 0);
  return await witness.variable();
}

async function set(lab: Lab, guest: string, value: number): Promise<void> {
  await using witness = await lab.witness(guest);
  await witness.setVariable(value);
  assert.equal(await witness.variable(), value);
}
