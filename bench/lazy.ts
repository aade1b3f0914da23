/**
 * Restore method lazy beside an eager load of the same file by stock QEMU, in turn: when the guest runs, how long it waits
 * for what it touches, when all of its memory is there. Waits are QEMU's own: from the fault to the page's arrival.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findQemu } from '../src/qemu/binary.ts';
import { stopped } from '../src/qemu/capture-stopped.ts';
import { memoryArrived } from '../src/qemu/memory-arrival.ts';
import { readMemoryFile } from '../src/qemu/memory-file.ts';
import { STREAM_OFFSET } from '../src/qemu/migration.ts';
import { readPagerStatus } from '../src/qemu/pager-files.ts';
import { startPager } from '../src/qemu/pager-process.ts';
import { killQemu, launchQemu, type QemuProcess } from '../src/qemu/process.ts';
import { eager } from '../src/qemu/restore-eager.ts';
import { lazy } from '../src/qemu/restore-lazy.ts';
import { MAIN_MEMORY, type LoadRequest } from '../src/qemu/restore.ts';
import { testBoot } from '../test/support/lab.ts';
import { Witness } from '../test/support/witness.ts';

const { values: options } = parseArgs({
  options: {
    'memory-mib': { type: 'string', default: '1024,4096' },
    /** the part of it that is filled with random data */
    fill: { type: 'string', default: '0.75' },
    rounds: { type: 'string', default: '5' },
    /** what the guest does meanwhile: rewrites pages at random */
    'dirty-mbps': { type: 'string', default: '0' },
  },
});

/** What is measured is the program as it is built: that starts faster than one from the sources. */
const BUILT_PAGER = join(import.meta.dirname, '../dist/qemu/pager-main.js');

/** A page is asked for, with its address, or has come: in QEMU's trace. */
const TRACE = /@(\d+)\.(\d+):postcopy_page_req_(add|del) \w+ page req (0x[0-9a-f]+)/;

class Figures {
  readonly #values = new Map<string, number[]>();

  add(what: string, value: number): void {
    this.#values.set(what, [...(this.#values.get(what) ?? []), value]);
  }

  print(): void {
    for (const [what, values] of this.#values) {
      const sorted = values.toSorted((a, b) => a - b);
      const [median = NaN, min = NaN, max = NaN] = [
        sorted[Math.floor(sorted.length / 2)],
        sorted[0],
        sorted.at(-1),
      ];
      process.stdout.write(`  ${what}: ${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})\n`);
    }
  }
}

class Bench {
  readonly #directory: string;
  readonly #memoryMiB: number;
  readonly #figures = new Figures();
  #made = 0;

  constructor(directory: string, memoryMiB: number) {
    this.#directory = directory;
    this.#memoryMiB = memoryMiB;
  }

  async run(): Promise<void> {
    const fillMiB = Math.floor(this.#memoryMiB * Number(options.fill));
    const file = join(this.#directory, `memory-${this.#memoryMiB}`);
    await this.#save(file, fillMiB);
    const request = { file, memory: await readMemoryFile(file, STREAM_OFFSET) };
    for (let round = 0; round < Number(options.rounds); round += 1) {
      const greetingMs = await this.#greeting();
      const loadMs = await this.#eager(request);
      const { runningMs, completeMs } = await this.#lazy(request);
      this.#figures.add('all pages: lazy / eager, of a round', completeMs / loadMs);
      this.#figures.add('running: lazy − 1.3 × QEMU alone, of a round, ms', runningMs - 1.3 * greetingMs);
    }
    process.stdout.write(`${this.#memoryMiB} MiB guest, ${fillMiB} MiB random: median (min–max)\n`);
    this.#figures.print();
    await rm(file);
  }

  async #save(file: string, fillMiB: number): Promise<void> {
    await this.#with([], async (process) => {
      await using witness = await this.#witness(process);
      await witness.fill(1, fillMiB);
      await witness.dirty(Number(options['dirty-mbps']));
      await stopped.capture({ qmp: process.qmp, file, onPaused: async () => undefined });
    });
  }

  /** Nothing but the start: what no restore can be faster than. */
  async #greeting(): Promise<number> {
    const begin = performance.now();
    let greetingMs = NaN;
    await this.#with(['-S'], async () => {
      greetingMs = performance.now() - begin;
    });
    this.#figures.add('QEMU alone: start to greeting, ms', greetingMs);
    return greetingMs;
  }

  async #eager(request: LoadRequest): Promise<number> {
    const begin = performance.now();
    let loadMs = NaN;
    await this.#with(eager.machineArgs(request), async (process) => {
      ({ loadMs } = await eager.load(process, request));
      await process.qmp.execute('cont');
      this.#figures.add('eager: start to guest running, ms', performance.now() - begin);
    });
    this.#figures.add('eager: load, ms', loadMs);
    return loadMs;
  }

  async #lazy(request: LoadRequest): Promise<{ runningMs: number; completeMs: number }> {
    const begin = performance.now();
    const runDirectory = this.#newDirectory();
    let [runningMs, completeMs] = [NaN, NaN];
    const trace = ['-trace', 'postcopy_page_req_*', '-msg', 'timestamp=on'];
    const { file } = request;
    const pager = await startPager(
      runDirectory,
      { file, mainBlock: MAIN_MEMORY, hostPageBytes: 4096 },
      BUILT_PAGER,
    );
    await this.#with(
      [...lazy.machineArgs(request), ...trace],
      async (process) => {
        const loading = performance.now();
        const { loadMs } = await lazy.load(process, { ...request, pager });
        await process.qmp.execute('cont');
        runningMs = performance.now() - begin;
        this.#figures.add('lazy: start to guest running, ms', runningMs);
        this.#figures.add('lazy: load, ms', loadMs);
        await using witness = await Witness.connect(join(runDirectory, 'serial.sock'));
        await witness.ping(60_000);
        this.#figures.add('lazy: start to guest answering, ms', performance.now() - begin);
        await memoryArrived(process);
        completeMs = performance.now() - loading;
        this.#figures.add('lazy: until all pages are there, ms', completeMs);
        const status = await readPagerStatus(runDirectory);
        this.#figures.add('lazy: pages asked for', status?.waits.count ?? NaN);
        this.#figures.add('lazy: wait as the pager sees it, p99, ms', status?.waits.p99Ms ?? NaN);
        await this.#waits(runDirectory);
      },
      runDirectory,
    );
    return { runningMs, completeMs };
  }

  async #waits(runDirectory: string): Promise<void> {
    const asked = new Map<string, number>();
    const waits: number[] = [];
    for (const line of (await readFile(join(runDirectory, 'qemu.log'), 'utf8')).split('\n')) {
      const [, seconds = '', microseconds = '', kind, page = ''] = TRACE.exec(line) ?? [];
      const at = Number(seconds) * 1e3 + Number(microseconds) / 1e3;
      const begin = asked.get(page);
      if (kind === 'add') asked.set(page, at);
      if (kind === 'del' && begin !== undefined) waits.push(at - begin);
    }
    const sorted = waits.toSorted((a, b) => a - b);
    const at = (part: number) => sorted[Math.floor((sorted.length - 1) * part)] ?? NaN;
    this.#figures.add('lazy: faults', sorted.length);
    this.#figures.add('lazy: wait of a fault, p50, ms', at(0.5));
    this.#figures.add('lazy: wait of a fault, p99, ms', at(0.99));
    this.#figures.add('lazy: wait of a fault, longest, ms', at(1));
  }

  async #witness({ runDirectory }: QemuProcess): Promise<Witness> {
    const witness = await Witness.connect(join(runDirectory, 'serial.sock'));
    await witness.ping(60_000);
    return witness;
  }

  #newDirectory(): string {
    this.#made += 1;
    return join(this.#directory, `run-${this.#memoryMiB}-${this.#made}`);
  }

  async #with(
    args: readonly string[],
    use: (process: QemuProcess) => Promise<void>,
    runDirectory = this.#newDirectory(),
  ): Promise<void> {
    const { kernel, initrd, cmdline } = testBoot();
    const machine = [
      '-machine',
      'pc-q35-10.0',
      '-accel',
      'tcg',
      '-cpu',
      'max',
      '-m',
      String(this.#memoryMiB),
    ];
    const serial = ['-chardev', 'socket,id=s,path=serial.sock,server=on,wait=off', '-serial', 'chardev:s'];
    const boot = ['-kernel', kernel, '-initrd', initrd, '-append', cmdline];
    const binary = (await findQemu()).path;
    try {
      const process = await launchQemu({
        binary,
        args: [...machine, '-nodefaults', '-display', 'none', ...serial, ...boot, ...args],
        runDirectory,
      });
      await use(process);
      await process[Symbol.asyncDispose]();
    } finally {
      await killQemu(runDirectory, { graceMs: 0 });
    }
  }
}

const directory = await mkdtemp(join(tmpdir(), 'stasis-bench-'));
try {
  for (const memoryMiB of options['memory-mib'].split(','))
    await new Bench(directory, Number(memoryMiB)).run();
} finally {
  await rm(directory, { recursive: true, force: true });
}
