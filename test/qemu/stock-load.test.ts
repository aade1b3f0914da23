/**
 * An image is no prison: QEMU loads every memory file by itself, from its command line, without anything of Stasis. The
 * monitor is only there to look at the outcome.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { background } from '../../src/qemu/capture/background.ts';
import { precopy } from '../../src/qemu/capture/precopy.ts';
import { stopped } from '../../src/qemu/capture/stopped.ts';
import { PlainQmp } from '../support/plain-qmp.ts';
import { Witness } from '../support/witness.ts';
import { Lab } from './lab.ts';
import { assertWhole, machineArgs, MEMORY_BYTES, WitnessGuest } from './witness-guest.ts';

/** Where a capture begins in its file: known to who loads it by hand, from QEMU's own documentation of `file:`. */
const OFFSET = 4096;

for (const method of [precopy, background, stopped]) {
  test(`${method.name}: qemu-system-x86_64 -incoming loads the memory file by itself`, async () => {
    await using lab = await Lab.open();
    await using source = await WitnessGuest.boot(lab, 'source');
    const saved = lab.path('saved');
    {
      await using witness = await source.witness();
      await witness.fill(1, 32);
      await witness.dirty(100);
    }
    const { file, layers } = await source.capture(method, async () => {
      await source.qmp.execute('pmemsave', { val: 0, size: MEMORY_BYTES, filename: saved });
    });

    const overlays = [await lab.overlay('one', layers[0] ?? ''), await lab.overlay('two', layers[1] ?? '')];
    const incoming = ['-global', 'migration.mapped-ram=on', '-incoming', `file:${file},offset=${OFFSET}`];
    await using stock = new StockQemu(lab, [...machineArgs(overlays), '-S', ...incoming]);
    const qmp = await stock.loaded();
    const loaded = lab.path('loaded');
    await qmp.ask('pmemsave', { val: 0, size: MEMORY_BYTES, filename: loaded });
    assert.ok((await readFile(saved)).equals(await readFile(loaded)), 'every byte of memory is the same');

    await qmp.ask('cont');
    await using witness = await Witness.connect(lab.path('serial.sock'));
    await assertWhole(witness);
  });
}

/** A process of this test's own, started and asked without the sources. */
class StockQemu implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;

  constructor(lab: Lab, args: readonly string[]) {
    this.#child = spawn(lab.binary.path, [...args, '-qmp', 'stdio'], {
      cwd: lab.directory,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }

  /** Resolves when memory is loaded: the guest stands still then. What QEMU says when it can't is on our stderr. */
  async loaded(): Promise<PlainQmp> {
    const qmp = await PlainQmp.over(this.#child.stdout, this.#child.stdin);
    for (;;) {
      const { status } = await qmp.ask<{ status: string }>('query-status');
      if (status === 'paused') return qmp;
      assert.equal(status, 'inmigrate');
      await delay(20); // a guest that is loaded for -S announces nothing
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = this.#child.exitCode === null ? once(this.#child, 'exit') : undefined;
    this.#child.kill('SIGKILL');
    await exited;
  }
}
