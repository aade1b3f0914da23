/**
 * The same work by hand: QEMU and QMP alone, the fastest that anybody could script. No catalog, no journal, nothing
 * verified, nothing synced to disk: the limit that Stasis is measured against.
 */
import { execFile } from 'node:child_process';
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findQemu } from '../src/qemu/binary.ts';
import { fileChannel } from '../src/qemu/migration.ts';
import { killQemu, launchQemu, type QemuProcess } from '../src/qemu/process.ts';
import type { QmpClient } from '../src/qemu/qmp.ts';
import { testBoot } from '../test/support/lab.ts';
import { Witness } from '../test/support/witness.ts';

const run = promisify(execFile);
const DISKS = ['a', 'b'] as const;

export interface Saved {
  readonly file: string;
  /** files that the disks were on at that instant */
  readonly layers: readonly string[];
  readonly pauseMs: number;
  readonly saveMs: number;
  readonly storedBytes: number;
}

/** A guest of two qcow2 disks without anybody who manages it. */
export class BareGuest implements AsyncDisposable {
  readonly #directory: string;
  readonly #memoryMiB: number;
  #process: QemuProcess | undefined;
  #layers: readonly string[] = [];
  #made = 0;

  constructor(directory: string, memoryMiB: number) {
    this.#directory = directory;
    this.#memoryMiB = memoryMiB;
  }

  async boot(): Promise<void> {
    await mkdir(this.#directory, { recursive: true });
    this.#layers = DISKS.map((disk) => join(this.#directory, `${disk}.qcow2`));
    for (const layer of this.#layers) await run('qemu-img', ['create', '-q', '-f', 'qcow2', layer, '64M']);
    this.#process = await this.#launch(this.#layers, []);
  }

  async witness(): Promise<Witness> {
    const witness = await Witness.connect(join(this.#running.runDirectory, 'serial.sock'));
    await witness.ping(60_000);
    return witness;
  }

  /** Saves live: memory while the guest runs, the disks switched in the pause. */
  async saveLive(): Promise<Saved> {
    const { qmp } = this.#running;
    const begin = performance.now();
    const overlays = await this.#overlays(this.#layers);
    const names = overlays.map((path, index) => ({ path, name: `overlay${this.#made}-${index}` }));
    for (const { path, name } of names) {
      await qmp.execute('blockdev-add', {
        driver: 'qcow2',
        'node-name': name,
        backing: null,
        file: { driver: 'file', filename: path },
      });
    }
    const heads = await qmp.execute('query-block');
    const file = this.#newFile();
    using events = qmp.watch('MIGRATION', 'STOP', 'RESUME');
    await setCapabilities(qmp, ['mapped-ram', 'multifd', 'pause-before-switchover', 'events']);
    await qmp.execute('migrate', { channels: [fileChannel(file)] });
    const stop = await events.next(({ event }) => event === 'STOP');
    await events.next((event) => event.event === 'MIGRATION' && event.data.status === 'pre-switchover');
    await qmp.execute('transaction', {
      actions: names.map(({ name }, index) => ({
        type: 'blockdev-snapshot',
        data: { node: heads[index]?.inserted?.['node-name'] ?? '', overlay: name },
      })),
    });
    await qmp.execute('migrate-continue', { state: 'pre-switchover' });
    await events.next((event) => event.event === 'MIGRATION' && event.data.status === 'completed');
    await untilSettled(qmp);
    await qmp.execute('cont');
    const resume = await events.next(({ event }) => event === 'RESUME');
    const saveMs = performance.now() - begin;
    await resetCapabilities(qmp);
    const layers = this.#layers;
    this.#layers = overlays;
    return {
      file,
      layers,
      saveMs,
      pauseMs: resume.timestampMs - stop.timestampMs,
      storedBytes: await stored(file),
    };
  }

  /** Stops the guest, writes its memory with direct I/O and ends it. */
  async saveAndStop(): Promise<Saved> {
    const { qmp } = this.#running;
    const begin = performance.now();
    await qmp.execute('stop');
    const file = this.#newFile();
    using events = qmp.watch('MIGRATION');
    await setCapabilities(qmp, ['mapped-ram', 'multifd', 'events']);
    await qmp.execute('migrate-set-parameters', { 'direct-io': true });
    await qmp.execute('migrate', { channels: [fileChannel(file)] });
    await events.next((event) => event.data.status === 'completed');
    await this.end();
    return {
      file,
      layers: this.#layers,
      saveMs: performance.now() - begin,
      pauseMs: 0,
      storedBytes: await stored(file),
    };
  }

  /** Gives up what the guest is and loads what was saved, on new overlays, or on the layers themselves. */
  async restore(saved: Saved, reuse: boolean): Promise<void> {
    const layers = reuse ? saved.layers : await this.#overlays(saved.layers);
    const next = await this.#launch(layers, ['-incoming', 'defer']);
    using events = next.qmp.watch('MIGRATION');
    await setCapabilities(next.qmp, ['mapped-ram', 'multifd', 'events']);
    await next.qmp.execute('migrate-set-parameters', { 'direct-io': true });
    await next.qmp.execute('migrate-incoming', { channels: [fileChannel(saved.file)] });
    await events.next((event) => event.data.status === 'completed');
    await this.end();
    this.#process = next;
    this.#layers = layers;
    await next.qmp.execute('cont');
  }

  async end(): Promise<void> {
    if (this.#process === undefined) return;
    await killQemu(this.#process.runDirectory);
    this.#process = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }

  get #running(): QemuProcess {
    if (this.#process === undefined) throw new Error('the bare guest does not run');
    return this.#process;
  }

  async #launch(layers: readonly string[], extra: readonly string[]): Promise<QemuProcess> {
    this.#made += 1;
    const { kernel, initrd, cmdline } = testBoot();
    const disks = layers.flatMap((path, index) => [
      ...[
        '-blockdev',
        JSON.stringify({
          driver: 'qcow2',
          'node-name': `disk${index}`,
          file: { driver: 'file', filename: path },
        }),
      ],
      ...['-device', `virtio-blk-pci,drive=disk${index},addr=0x${(8 + index).toString(16)}`],
    ]);
    const args = [
      '-machine',
      'q35',
      '-accel',
      'tcg',
      '-cpu',
      'max',
      '-m',
      String(this.#memoryMiB),
      '-nodefaults',
      '-display',
      'none',
    ];
    const serial = ['-chardev', 'socket,id=s,path=serial.sock,server=on,wait=off', '-serial', 'chardev:s'];
    const boot = ['-kernel', kernel, '-initrd', initrd, '-append', cmdline];
    const runDirectory = join(this.#directory, `run${this.#made}`);
    const paused = extra.length > 0 ? ['-S'] : [];
    return launchQemu({
      binary: (await findQemu()).path,
      args: [...args, ...serial, ...boot, ...disks, ...paused, ...extra],
      runDirectory,
    });
  }

  async #overlays(below: readonly string[]): Promise<string[]> {
    this.#made += 1;
    const paths = below.map((_, index) => join(this.#directory, `overlay${this.#made}-${index}.qcow2`));
    for (const [index, path] of paths.entries()) {
      await run('qemu-img', [
        'create',
        '-q',
        '-u',
        '-f',
        'qcow2',
        '-b',
        below[index] ?? '',
        '-F',
        'qcow2',
        path,
        '64M',
      ]);
    }
    return paths;
  }

  #newFile(): string {
    this.#made += 1;
    return join(this.#directory, `memory${this.#made}`);
  }
}

async function setCapabilities(
  qmp: QmpClient,
  names: readonly ('mapped-ram' | 'multifd' | 'pause-before-switchover' | 'events')[],
): Promise<void> {
  await qmp.execute('migrate-set-capabilities', {
    capabilities: names.map((capability) => ({ capability, state: true })),
  });
  await qmp.execute('migrate-set-parameters', {
    'max-bandwidth': 64 * 1024 ** 3,
    'downtime-limit': 20,
    'multifd-channels': 2,
  });
}

async function resetCapabilities(qmp: QmpClient): Promise<void> {
  const names = ['mapped-ram', 'multifd', 'pause-before-switchover'] as const;
  // QEMU reads them once more after `completed`; by now it has.
  await qmp.execute('migrate-set-capabilities', {
    capabilities: names.map((capability) => ({ capability, state: false })),
  });
}

/** `completed` is told just before QEMU accepts `cont`, and nothing tells of that. */
async function untilSettled(qmp: QmpClient): Promise<void> {
  while ((await qmp.execute('query-status')).status === 'finish-migrate');
}

async function stored(file: string): Promise<number> {
  return (await stat(file)).blocks * 512;
}
