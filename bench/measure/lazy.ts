/**
 * Restore method lazy beside an eager load of the same file by stock QEMU, in turn: how long the guest waits for what it
 * touches, and when all of its memory is there. Waits are QEMU's own: from the fault to the page's arrival, by its trace.
 */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { findQemu } from '../../src/qemu/build/binary.ts';
import { stopped } from '../../src/qemu/capture/stopped.ts';
import { memoryArrived } from '../../src/qemu/restore/memory-arrival.ts';
import { readMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { startPager } from '../../src/qemu/pager/pager-process.ts';
import { killQemu, launchQemu, type QemuProcess } from '../../src/qemu/process/process.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { lazy } from '../../src/qemu/restore/lazy.ts';
import { MAIN_MEMORY, type LoadRequest } from '../../src/qemu/restore/restore.ts';
import { testBoot } from '../../test/support/lab.ts';
import type { Figures, Setting, Unit } from '../figures.ts';
import { connectWitness, run } from '../peers/peer.ts';

/** What is measured is the program as it is built: that starts faster than one from the sources. */
const BUILT_PAGER = join(import.meta.dirname, '../../dist/qemu/pager/pager-main.js');
/** A page is asked for, with its address, or has come: in QEMU's trace. */
const TRACE = /@(\d+)\.(\d+):postcopy_page_req_(add|del) \w+ page req (0x[0-9a-f]+)/;
/** Most of the memory: a load that takes long. */
const FILLED = 0.75;

export async function measureLazy(
  directory: string,
  setting: Setting,
  rounds: number,
  figures: Figures,
): Promise<void> {
  const { memoryMiB } = setting;
  const file = join(directory, `memory-${memoryMiB}`);
  const machine = new Machine(directory, memoryMiB);
  await machine.save(file);
  const request = { file, memory: await readMemoryFile(file, STREAM_OFFSET) };
  const add = (figure: string, by: string, unit: Unit, value: number) =>
    figures.add(figure, setting, by, unit, value);
  for (let round = 0; round < rounds; round += 1) {
    await run('sync', []);
    const loadMs = await machine.loadEagerly(request);
    const { completeMs, waitsMs } = await machine.loadLazily(request);
    add('until all memory is there', 'QEMU, eager', 'ms', loadMs);
    add('until all memory is there', 'lazy', 'ms', completeMs);
    add('wait for a page, 99 of 100', 'lazy', 'ms', quantile(waitsMs, 0.99));
    add('wait for a page, longest', 'lazy', 'ms', quantile(waitsMs, 1));
  }
  await rm(file);
}

/** Starts one QEMU after the other for the same guest, and ends each. */
class Machine {
  readonly #directory: string;
  readonly #memoryMiB: number;
  #made = 0;

  constructor(directory: string, memoryMiB: number) {
    this.#directory = directory;
    this.#memoryMiB = memoryMiB;
  }

  async save(file: string): Promise<void> {
    await this.#with([], async ({ qmp, runDirectory }) => {
      await using witness = await connectWitness(join(runDirectory, 'serial.sock'));
      await witness.fill(1, Math.floor(this.#memoryMiB * FILLED));
      await stopped.capture({ qmp, file, onPaused: () => Promise.resolve() });
    });
  }

  /** @returns milliseconds from the request to a guest with all of its memory */
  async loadEagerly(request: LoadRequest): Promise<number> {
    return this.#with(eager.machineArgs(request), async (process) => {
      const { loadMs } = await eager.load(process, request);
      return loadMs;
    });
  }

  async loadLazily(request: LoadRequest): Promise<{ completeMs: number; waitsMs: number[] }> {
    const runDirectory = this.#newDirectory();
    const { file } = request;
    const pager = await startPager(
      runDirectory,
      { file, mainBlock: MAIN_MEMORY, hostPageBytes: 4096 },
      BUILT_PAGER,
    );
    const trace = ['-trace', 'postcopy_page_req_*', '-msg', 'timestamp=on'];
    const use = async (process: QemuProcess) => {
      const begin = performance.now();
      await lazy.load(process, { ...request, pager });
      await process.qmp.execute('cont');
      await (await connectWitness(join(runDirectory, 'serial.sock'))).close();
      await memoryArrived(process);
      const completeMs = performance.now() - begin;
      return { completeMs, waitsMs: waitsIn(await readFile(join(runDirectory, 'qemu.log'), 'utf8')) };
    };
    return this.#with([...lazy.machineArgs(request), ...trace], use, runDirectory);
  }

  #newDirectory(): string {
    this.#made += 1;
    return join(this.#directory, `lazy-${this.#memoryMiB}-${this.#made}`);
  }

  async #with<T>(
    args: readonly string[],
    use: (process: QemuProcess) => Promise<T>,
    runDirectory = this.#newDirectory(),
  ): Promise<T> {
    const { kernel, initrd, cmdline } = testBoot();
    const machine = ['-machine', 'pc-q35-10.0', '-accel', 'tcg', '-cpu', 'max'];
    const size = ['-m', String(this.#memoryMiB), '-nodefaults', '-display', 'none'];
    const serial = ['-chardev', 'socket,id=s,path=serial.sock,server=on,wait=off', '-serial', 'chardev:s'];
    const boot = ['-kernel', kernel, '-initrd', initrd, '-append', cmdline];
    try {
      await using process = await launchQemu({
        binary: (await findQemu()).path,
        args: [...machine, ...size, ...serial, ...boot, ...args],
        runDirectory,
      });
      return await use(process);
    } finally {
      await killQemu(runDirectory, { graceMs: 0 });
    }
  }
}

function waitsIn(log: string): number[] {
  const asked = new Map<string, number>();
  const waits: number[] = [];
  for (const line of log.split('\n')) {
    const [, seconds = '', microseconds = '', kind, page = ''] = TRACE.exec(line) ?? [];
    const at = Number(seconds) * 1e3 + Number(microseconds) / 1e3;
    const begin = asked.get(page);
    if (kind === 'add') asked.set(page, at);
    if (kind === 'del' && begin !== undefined) waits.push(at - begin);
  }
  return waits;
}

function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * part) - 1] ?? Number.NaN;
}
