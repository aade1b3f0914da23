import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errnoOf } from '../src/errors.ts';
import { QUICK_BOOT } from './support/lab.ts';
import { Witness, WitnessError } from './support/witness.ts';

// The guest that all other tests build on, without Stasis: what it witnesses must be true.

const run = promisify(execFile);
const guestDir = join(import.meta.dirname, '../.cache/test-guest');
let directory = '';

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'stasis-test-guest-'));
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', join(directory, 'a.qcow2'), '64M']);
  await run('qemu-img', ['create', '-q', '-f', 'raw', join(directory, 'b.raw'), '64M']);
});

after(() => rm(directory, { recursive: true, force: true }));

/** A QEMU process with the guest in it; disposing of it ends it, whatever it does by then. */
class Machine implements AsyncDisposable {
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
  readonly #qmpPath: string;
  readonly #consolePath: string;

  constructor(name: string, cmdline = '') {
    this.#qmpPath = join(directory, `${name}.qmp`);
    this.#consolePath = join(directory, `${name}.console`);
    const options = [
      ['-accel', 'tcg', '-machine', 'q35', '-m', '128', '-nodefaults', '-display', 'none', '-no-reboot'],
      ['-kernel', join(guestDir, 'vmlinuz'), '-initrd', join(guestDir, 'initrd.gz')],
      ['-append', `console=ttyS0 quiet ${QUICK_BOOT.join(' ')} ${cmdline}`],
      ['-serial', `unix:${this.#consolePath},server=on,wait=off`],
      ['-qmp', `unix:${this.#qmpPath},server=on,wait=off`],
      ['-drive', `if=virtio,format=qcow2,file=${join(directory, 'a.qcow2')}`],
      ['-drive', `if=virtio,format=raw,file=${join(directory, 'b.raw')}`],
    ].flat();
    this.process = spawn(process.env['STASIS_QEMU'] ?? 'qemu-system-x86_64', options, {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    this.exited = once(this.process, 'exit');
  }

  async witness(): Promise<Witness> {
    await this.#listening(this.#consolePath);
    for (;;) {
      try {
        return await Witness.connect(this.#consolePath);
      } catch (error) {
        if (!(error instanceof Error && errnoOf(error.cause) === 'ECONNREFUSED')) throw error;
        await delay(10); // between bind(2) and listen(2)
      }
    }
  }

  async pressPowerButton(): Promise<void> {
    await this.#listening(this.#qmpPath);
    const qmp = createConnection(this.#qmpPath);
    try {
      for (const command of ['qmp_capabilities', 'system_powerdown']) {
        await once(qmp, 'data'); // the greeting, then the answer to the first command
        qmp.write(JSON.stringify({ execute: command }));
      }
      await once(qmp, 'data');
    } finally {
      qmp.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGKILL');
      await this.exited;
    }
  }

  /** QEMU announces its sockets by no event: their appearance is all there is. */
  async #listening(path: string): Promise<void> {
    for (let attempt = 0; attempt < 3000; attempt++) {
      if (this.process.exitCode !== null) throw new Error('QEMU ended at once: see its message above');
      const there = await access(path).then(
        () => true,
        () => false,
      );
      if (there) return;
      await delay(10);
    }
    throw new Error(`QEMU did not open ${path} within 30 s`);
  }
}

let counterAtPowerOff = 0;

test('the witness answers, and proves memory and disks', async () => {
  await using machine = new Machine('first', 'fill=7:8 interval=20');
  await using witness = await machine.witness();

  assert.deepEqual(await witness.ready(), { disks: ['vda', 'vdb'] });
  await witness.ping();

  // memory: contents follow from the seed, and a touched area is a different but a correct one
  const preset = await witness.checksum();
  assert.deepEqual({ errors: preset.errors, mib: preset.mib }, { errors: 0, mib: 8 });
  const filled = await witness.fill(1, 16);
  assert.match(filled.checksum, /^[0-9a-f]{16}$/);
  assert.notEqual(filled.checksum, preset.checksum);
  const touched = await witness.touch(1000, 5);
  assert.notEqual(touched.checksum, filled.checksum);
  assert.deepEqual(await witness.checksum(), { checksum: touched.checksum, errors: 0, mib: 16 });
  assert.equal((await witness.fill(1, 16)).checksum, filled.checksum);
  assert.equal((await witness.touch(1000, 5)).checksum, touched.checksum);
  let last = touched;
  for (const how of ['rewrite', 'touch'] as const) {
    await witness.dirty(20, how);
    assert.equal((await witness.checksum()).errors, 0);
    await witness.dirty(0);
    const still = await witness.checksum();
    assert.notEqual(still.checksum, last.checksum);
    assert.deepEqual(await witness.checksum(), still);
    last = still;
  }

  // stalls: seen while they are looked for, and told once
  const alive = Promise.withResolvers<void>();
  let count = 0;
  const beats = await witness.beats(() => {
    count += 1;
    if (count === 100) alive.resolve();
  });
  await alive.promise;
  await beats[Symbol.asyncDispose]();
  const { looks, p99Us, longestUs } = await witness.stalls();
  assert.ok(looks >= 100 && p99Us > 0 && (longestUs[0] ?? 0) >= (longestUs[1] ?? Infinity));

  // disks: what was written is what is read, on that disk only
  const wrote = await witness.write('vda', 8, 4, 99);
  assert.equal((await witness.read('vda', 8, 4)).checksum, wrote.checksum);
  assert.notEqual((await witness.read('vdb', 8, 4)).checksum, wrote.checksum);

  // what is refused says why, and the next command is answered as ever
  await assert.rejects(witness.write('vda', 0, 4, 1), WitnessError);
  await assert.rejects(witness.read('vdz', 0, 1), /no such disk/);
  await assert.rejects(witness.read('vda', 63, 2), /beyond the end/);
  await assert.rejects(witness.fill(1, 4096), /not that much free memory/);

  // the counter: goes on by itself, stands still when told to, and agrees everywhere
  await witness.hammer('off');
  const paused = await witness.status();
  assert.ok(paused.counter > 0);
  assert.deepEqual(paused.disks, { vda: { counter: paused.counter }, vdb: { counter: paused.counter } });
  assert.equal((await witness.status()).counter, paused.counter);
  await witness.interval(0);
  await witness.hammer('on');
  const running = await witness.status();
  assert.ok(running.intervalMs === 0 && running.counting);
  while ((await witness.status()).counter === paused.counter); // until it has counted once more
  await witness.hammer('off');
  const end = await witness.status();
  assert.ok(end.counter > paused.counter);
  assert.deepEqual([end.mismatches, end.memoryErrors, end.ioErrors], [0, 0, 0]);
  counterAtPowerOff = end.counter;

  // the power button
  const announced = witness.poweringOff();
  await machine.pressPowerButton();
  await announced;
  await machine.exited;
  assert.equal(machine.process.exitCode, 0);
});

test('after a reboot the counter goes on from what the disks hold, and noacpi leaves the button alone', async () => {
  await using machine = new Machine('second', 'hammer=off noacpi');
  await using witness = await machine.witness();
  await witness.ready();
  const status = await witness.status();
  assert.equal(status.counter, counterAtPowerOff);
  assert.equal(status.apartAtStart, 0);
  assert.equal(status.areaMiB, 0);

  await machine.pressPowerButton();
  await assert.rejects(witness.poweringOff(500), /no answer within 500 ms/);
  await witness.ping();
  await witness.poweroff();
  await machine.exited;
});
