/**
 * The same work by hand: QEMU and QMP alone, the fastest that anybody could script. No catalog, no journal, nothing
 * verified, nothing synced to disk: the limit that Stasis is measured against.
 */
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { findQemu } from '../../src/qemu/build/binary.ts';
import { backingChain, headNodes, removeNode } from '../../src/qemu/block/block-graph.ts';
import { commitActive } from '../../src/qemu/block/block-merge.ts';
import { cancelMigration, fileChannel } from '../../src/qemu/migration.ts';
import { killQemu, launchQemu, type QemuProcess } from '../../src/qemu/process/process.ts';
import type { QmpClient } from '../../src/qemu/qmp/client.ts';
import { testBoot } from '../../test/support/lab.ts';
import type { Witness } from '../../test/support/witness.ts';
import { connectWitness, run, timed, type LiveSave, type Peer, type StoppedSave } from './peer.ts';

const DISKS = ['a', 'b'] as const;
const NOTHING = (): Promise<void> => Promise.resolve();

export class Bare implements Peer {
  readonly name = 'bare QMP';
  readonly #directory: string;
  readonly #memoryMiB: number;
  /** the two disks, and what is laid over them and written to */
  readonly #disks: readonly string[];
  #overlays: readonly string[] = [];
  /** disks of a guest that is only started */
  readonly #spares: readonly string[];
  #process: QemuProcess | undefined;
  #memoryFile = '';
  #made = 0;

  private constructor(directory: string, memoryMiB: number) {
    this.#directory = join(directory, 'bare');
    this.#memoryMiB = memoryMiB;
    this.#disks = DISKS.map((disk) => join(this.#directory, `${disk}.qcow2`));
    this.#spares = DISKS.map((disk) => join(this.#directory, `spare-${disk}.qcow2`));
  }

  static async create(directory: string, memoryMiB: number): Promise<Bare> {
    const bare = new Bare(directory, memoryMiB);
    await mkdir(bare.#directory, { recursive: true });
    for (const disk of [...bare.#disks, ...bare.#spares]) {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '64M']);
    }
    return bare;
  }

  async boot(): Promise<void> {
    this.#process = await this.#launch(this.#disks, []);
  }

  /** Starts such a guest to its first answer over QMP and not further, and ends it again. @returns milliseconds */
  async untilGreeting(): Promise<number> {
    const { ms, result } = await timed(() => this.#launch(this.#spares, ['-S']));
    await killQemu(result.runDirectory, { graceMs: 0 });
    return ms;
  }

  pid(): Promise<number> {
    return Promise.resolve(this.#running.pid);
  }

  witness(): Promise<Witness> {
    return connectWitness(join(this.#running.runDirectory, 'serial.sock'));
  }

  /** Memory while the guest runs, the disks switched in the pause. */
  async saveLive(signal: AbortSignal): Promise<LiveSave> {
    const { qmp } = this.#running;
    const begin = performance.now();
    const overlays = await this.#newOverlays();
    const heads = [...(await headNodes(qmp)).values()];
    const switches = heads.map((node, index) => ({ node, overlay: `overlay${this.#made}-${index}` }));
    for (const [index, { overlay }] of switches.entries()) {
      await qmp.execute('blockdev-add', {
        driver: 'qcow2',
        'node-name': overlay,
        backing: null,
        file: { driver: 'file', filename: overlays[index] ?? '' },
      });
    }
    const file = this.#newMemoryFile();
    using events = qmp.watch('MIGRATION', 'STOP', 'RESUME');
    await setCapabilities(qmp, ['mapped-ram', 'multifd', 'pause-before-switchover', 'events']);
    await qmp.execute('migrate', { channels: [fileChannel(file)] });
    let stop;
    try {
      stop = await events.next(({ event }) => event === 'STOP', { signal });
    } catch (error) {
      await cancelMigration(qmp);
      await resetCapabilities(qmp);
      for (const { overlay } of switches) await removeNode(qmp, overlay);
      await remove([...overlays, file]);
      throw error;
    }
    await events.next((event) => event.event === 'MIGRATION' && event.data.status === 'pre-switchover');
    await qmp.execute('transaction', {
      actions: switches.map((data) => ({ type: 'blockdev-snapshot', data })),
    });
    await qmp.execute('migrate-continue', { state: 'pre-switchover' });
    await events.next((event) => event.event === 'MIGRATION' && event.data.status === 'completed');
    await untilSettled(qmp);
    await qmp.execute('cont');
    const resume = await events.next(({ event }) => event === 'RESUME');
    const saveMs = performance.now() - begin;
    await resetCapabilities(qmp);
    this.#overlays = overlays;
    return { saveMs, pauseMs: resume.timestampMs - stop.timestampMs, storedBytes: await storedBytes(file) };
  }

  async restoreLive(): Promise<void> {
    const before = this.#overlays;
    this.#overlays = await this.#newOverlays();
    await this.#load(this.#overlays);
    await remove(before);
  }

  async dropLive(): Promise<void> {
    const { qmp } = this.#running;
    for (const head of (await headNodes(qmp)).values()) {
      const [, base = ''] = await backingChain(qmp, head);
      await commitActive(qmp, {
        jobId: `merge-${head}`,
        head,
        base,
        beforePivot: NOTHING,
        afterPivot: NOTHING,
      });
      await removeNode(qmp, head);
    }
    await remove([...this.#overlays, this.#memoryFile]);
    this.#overlays = [];
  }

  /** Stops the guest, writes its memory with direct I/O and ends it. */
  async saveAndStop(): Promise<StoppedSave> {
    const { qmp } = this.#running;
    const begin = performance.now();
    await qmp.execute('stop');
    const file = this.#newMemoryFile();
    using events = qmp.watch('MIGRATION');
    await setCapabilities(qmp, ['mapped-ram', 'multifd', 'events']);
    await qmp.execute('migrate-set-parameters', { 'direct-io': true });
    await qmp.execute('migrate', { channels: [fileChannel(file)] });
    await events.next((event) => event.data.status === 'completed');
    await this.#end();
    return { saveMs: performance.now() - begin, storedBytes: await storedBytes(file) };
  }

  async startAgain(): Promise<void> {
    await this.#load(this.#disks);
    await remove([this.#memoryFile]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** Loads what was saved beside the present machine, whose place the new one then takes. */
  async #load(disks: readonly string[]): Promise<void> {
    const next = await this.#launch(disks, ['-S', '-incoming', 'defer']);
    using events = next.qmp.watch('MIGRATION');
    await setCapabilities(next.qmp, ['mapped-ram', 'multifd', 'events']);
    await next.qmp.execute('migrate-set-parameters', { 'direct-io': true });
    await next.qmp.execute('migrate-incoming', { channels: [fileChannel(this.#memoryFile)] });
    await events.next((event) => event.data.status === 'completed');
    await this.#end();
    this.#process = next;
    await next.qmp.execute('cont');
    await resetCapabilities(next.qmp);
  }

  async #end(): Promise<void> {
    if (this.#process === undefined) return;
    await killQemu(this.#process.runDirectory);
    this.#process = undefined;
  }

  get #running(): QemuProcess {
    if (this.#process === undefined) throw new Error('the bare guest does not run');
    return this.#process;
  }

  async #launch(disks: readonly string[], extra: readonly string[]): Promise<QemuProcess> {
    this.#made += 1;
    const { kernel, initrd, cmdline } = testBoot();
    const machine = ['-machine', 'q35', '-accel', 'tcg', '-cpu', 'max', '-m', String(this.#memoryMiB)];
    const serial = ['-chardev', 'socket,id=s,path=serial.sock,server=on,wait=off', '-serial', 'chardev:s'];
    const boot = ['-kernel', kernel, '-initrd', initrd, '-append', cmdline];
    return launchQemu({
      binary: (await findQemu()).path,
      args: [
        ...machine,
        ...['-nodefaults', '-display', 'none'],
        ...serial,
        ...boot,
        ...disks.flatMap(diskArgs),
        ...extra,
      ],
      runDirectory: join(this.#directory, `run${this.#made}`),
    });
  }

  async #newOverlays(): Promise<string[]> {
    this.#made += 1;
    const paths = this.#disks.map((_, index) => join(this.#directory, `overlay${this.#made}-${index}.qcow2`));
    for (const [index, path] of paths.entries()) {
      const backing = ['-u', '-b', this.#disks[index] ?? '', '-F', 'qcow2'];
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path, '64M']);
    }
    return paths;
  }

  #newMemoryFile(): string {
    this.#made += 1;
    this.#memoryFile = join(this.#directory, `memory${this.#made}`);
    return this.#memoryFile;
  }
}

function diskArgs(filename: string, index: number): string[] {
  const node = { driver: 'qcow2', 'node-name': `disk${index}`, file: { driver: 'file', filename } };
  const device = `virtio-blk-pci,drive=disk${index},id=d${index},addr=0x${(8 + index).toString(16)}`;
  return ['-blockdev', JSON.stringify(node), '-device', device];
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
  await qmp.execute('migrate-set-parameters', { 'direct-io': false });
}

/** `completed` is told just before QEMU accepts `cont`, and nothing tells of that. */
async function untilSettled(qmp: QmpClient): Promise<void> {
  while ((await qmp.execute('query-status')).status === 'finish-migrate');
}

async function storedBytes(file: string): Promise<number> {
  return (await stat(file)).blocks * 512;
}

async function remove(files: readonly string[]): Promise<void> {
  for (const file of files) await rm(file, { force: true });
}
