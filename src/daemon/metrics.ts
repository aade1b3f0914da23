/**
 * What Prometheus is told. Counters begin with the daemon; what can be read from the catalog is read when somebody asks, by
 * sums in SQL. Labels are guests, disks, file systems, and words of ours: nothing that a guest or a client chooses freely, so
 * there are as many series as guests and disks allow, and a guest that is gone has none.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { GUEST_STATES } from '../api/constants.ts';
import { findImage } from '../catalog/images.ts';
import { headSummaries } from '../catalog/layers.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import {
  countImagesByState,
  countUnsettled,
  guestStates,
  newestImages,
  rootPaths,
  storedBytes,
} from '../catalog/statistics.ts';
import { messageOf, type ErrorBody } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { Manifest } from '../images/manifest.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { QMP_TIMEOUTS } from '../qemu/qmp/client.ts';
import { waitFor } from '../qemu/wait.ts';
import { fromStored } from '../stored.ts';
import { VERSION } from '../version.ts';
import { guestState, runsAround } from './guest-state.ts';

const PAUSE_BUCKETS_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const SAVE_BUCKETS_SECONDS = [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600];
/** A file system that hangs is left out. */
const PATIENCE_MS = 2_000;

export class Metrics implements Disposable {
  readonly #host: Host;
  readonly #engine: OperationEngine;
  readonly #registry = new Registry();
  readonly #counted;
  readonly #read;
  #reading: Promise<string> | undefined;

  constructor(host: Host, engine: OperationEngine) {
    this.#host = host;
    this.#engine = engine;
    this.#counted = counted(this.#registry);
    this.#read = gaugesIn(this.#registry);
    collectDefaultMetrics({ register: this.#registry });
    this.#read.build.set({ version: VERSION, qemu: host.qemu.versionText }, 1);
    engine.onEnded((record) => void this.#countOperation(record));
    subscribe(QMP_TIMEOUTS, this.#countTimeout);
  }

  [Symbol.dispose](): void {
    unsubscribe(QMP_TIMEOUTS, this.#countTimeout);
    this.#registry.clear();
  }

  /** A mutating call that was answered with an error. */
  countRefusal(method: string, code: string): void {
    if (method !== 'GET' && method !== 'HEAD') this.#counted.refusals.inc({ code });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics as text. Whoever asks while they are read gets the same. */
  async text(): Promise<string> {
    this.#reading ??= this.#gather().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #gather(): Promise<string> {
    await this.#readGuests();
    await this.#readImages();
    await this.#readFileSystems();
    const underWay = this.#engine.running().length;
    this.#read.underWay.set(underWay);
    this.#read.unsettled.set(Math.max(0, (await countUnsettled(this.#host.catalog)) - underWay));
    return this.#registry.metrics();
  }

  async #readGuests(): Promise<void> {
    const { catalog, supervisor } = this.#host;
    const { guests, chainDepth } = this.#read;
    guests.reset();
    for (const state of GUEST_STATES) guests.set({ state }, 0);
    const names = new Map<string, string>();
    const runOf = runsAround(supervisor);
    for (const guest of await guestStates(catalog)) {
      names.set(guest.uuid, guest.name);
      const operation = this.#engine.holderOf(guest.uuid)?.record;
      guests.inc({ state: guestState(guest, runOf(guest), operation) });
    }
    chainDepth.reset();
    for (const { guest, disk, layers } of await headSummaries(catalog, [...names.keys()]))
      chainDepth.set({ guest: names.get(guest) ?? guest, disk }, layers);
  }

  async #readImages(): Promise<void> {
    const { catalog } = this.#host;
    const { images, stored, newest, newestVerified } = this.#read;
    images.reset();
    for (const [state, count] of await countImagesByState(catalog)) images.set({ state }, count);
    const { memoryBytes, layerBytes } = await storedBytes(catalog);
    stored.set({ part: 'memory' }, memoryBytes);
    stored.set({ part: 'layers' }, layerBytes);
    newest.reset();
    newestVerified.reset();
    for (const { name: guest, newestAt, newestVerifiedAt } of await newestImages(catalog)) {
      if (newestAt !== null) newest.set({ guest }, Date.parse(newestAt) / 1000);
      if (newestVerifiedAt !== null) newestVerified.set({ guest }, Date.parse(newestVerifiedAt) / 1000);
    }
  }

  async #readFileSystems(): Promise<void> {
    const { size, free } = this.#read;
    size.reset();
    free.reset();
    const disks = (await rootPaths(this.#host.catalog)).map((path) => dirname(path));
    for (const mountpoint of await mountpoints([this.#host.paths.data, ...disks])) {
      const found = await patiently(statfs(mountpoint));
      if (found === undefined) continue;
      size.set({ mountpoint }, found.blocks * found.bsize);
      free.set({ mountpoint }, found.bavail * found.bsize);
    }
  }

  async #countOperation(record: OperationRecord): Promise<void> {
    const { kind, state, error } = record;
    this.#counted.operations.inc({ kind, outcome: state });
    if (error !== null) this.#counted.failures.inc({ kind, code: fromStored<ErrorBody>(error).code });
    if (record.procedure !== 'save' || state !== 'done' || record.guest === null) return;
    try {
      await this.#countSave(record.guest, record.image ?? '');
    } catch (failure) {
      this.#host.log.warn({ error: messageOf(failure) }, 'a save could not be counted');
    }
  }

  async #countSave(guest: string, name: string): Promise<void> {
    const image = await findImage(this.#host.catalog, guest, name);
    if (image === undefined) return; // deleted or replaced since
    const { method, pauseMs, saveMs, bytesWritten, memoryFile } = fromStored<Manifest>(image.manifest);
    if (image.live === 1 && pauseMs !== null) this.#counted.pause.observe({ method }, pauseMs / 1000);
    this.#counted.save.observe({ method }, saveMs / 1000);
    this.#counted.savedBytes.inc(bytesWritten ?? memoryFile.storedBytes);
  }

  readonly #countTimeout = (message: unknown): void => {
    this.#counted.qmpTimeouts.inc({ command: String(message) });
  };
}

/** What is counted as it happens. */
function counted(registry: Registry) {
  const registers = [registry];
  return {
    operations: new Counter({
      name: 'stasis_operations_total',
      help: 'Operations that have ended',
      ...{ labelNames: ['kind', 'outcome'] as const, registers },
    }),
    failures: new Counter({
      name: 'stasis_operation_failures_total',
      help: 'Operations that failed or were cancelled, by the code of the error',
      ...{ labelNames: ['kind', 'code'] as const, registers },
    }),
    refusals: new Counter({
      name: 'stasis_calls_refused_total',
      help: 'Calls that were to change something and were answered with an error',
      ...{ labelNames: ['code'] as const, registers },
    }),
    pause: new Histogram({
      name: 'stasis_live_save_pause_seconds',
      help: 'How long a guest stood still for a live save',
      buckets: PAUSE_BUCKETS_SECONDS,
      ...{ labelNames: ['method'] as const, registers },
    }),
    save: new Histogram({
      name: 'stasis_save_duration_seconds',
      help: 'How long a save took from its beginning to an image that is ready',
      buckets: SAVE_BUCKETS_SECONDS,
      ...{ labelNames: ['method'] as const, registers },
    }),
    savedBytes: new Counter({
      name: 'stasis_saved_bytes_total',
      help: 'Memory written by saves',
      registers,
    }),
    qmpTimeouts: new Counter({
      name: 'stasis_qmp_timeouts_total',
      help: 'Commands that a QEMU did not answer in time',
      ...{ labelNames: ['command'] as const, registers },
    }),
  };
}

/** What is read when somebody asks. */
export function gaugesIn(registry: Registry) {
  const registers = [registry];
  return {
    build: new Gauge({
      name: 'stasis_build_info',
      help: 'The versions at work',
      ...{ labelNames: ['version', 'qemu'] as const, registers },
    }),
    guests: new Gauge({
      name: 'stasis_guests',
      help: 'Guests by state',
      ...{ labelNames: ['state'] as const, registers },
    }),
    chainDepth: new Gauge({
      name: 'stasis_disk_chain_depth',
      help: "Layers from the one that a guest writes to down to the user's own file",
      ...{ labelNames: ['guest', 'disk'] as const, registers },
    }),
    images: new Gauge({
      name: 'stasis_images',
      help: 'Save images by state',
      ...{ labelNames: ['state'] as const, registers },
    }),
    newest: new Gauge({
      name: 'stasis_guest_newest_image_timestamp_seconds',
      help: 'When the newest image of a guest was taken that can be restored',
      ...{ labelNames: ['guest'] as const, registers },
    }),
    newestVerified: new Gauge({
      name: 'stasis_guest_newest_verified_image_timestamp_seconds',
      help: 'When the newest image of a guest was taken that was verified',
      ...{ labelNames: ['guest'] as const, registers },
    }),
    stored: new Gauge({
      name: 'stasis_stored_bytes',
      help: 'What images occupy: memory files, and layers as they were when they were sealed',
      ...{ labelNames: ['part'] as const, registers },
    }),
    size: new Gauge({
      name: 'stasis_filesystem_size_bytes',
      help: 'Size of the file systems that images and disks are on',
      ...{ labelNames: ['mountpoint'] as const, registers },
    }),
    free: new Gauge({
      name: 'stasis_filesystem_free_bytes',
      help: 'What is free on them for the user that the daemon is',
      ...{ labelNames: ['mountpoint'] as const, registers },
    }),
    underWay: new Gauge({
      name: 'stasis_operations_running',
      help: 'Operations under way',
      registers,
    }),
    unsettled: new Gauge({
      name: 'stasis_operations_unsettled',
      help: 'Operations that could be neither finished nor undone yet',
      registers,
    }),
  };
}

/** Where the file systems begin that the directories are in; those that aren't there are left out. */
async function mountpoints(directories: readonly string[]): Promise<string[]> {
  const found = new Map<number, string>();
  for (const directory of new Set(directories)) {
    const device = await deviceOf(directory);
    if (device !== undefined && !found.has(device)) found.set(device, await topOf(directory, device));
  }
  return [...found.values()].toSorted();
}

async function topOf(directory: string, device: number): Promise<string> {
  const parent = dirname(directory);
  if (parent === directory || (await deviceOf(parent)) !== device) return directory;
  return topOf(parent, device);
}

async function deviceOf(path: string): Promise<number | undefined> {
  return (await patiently(stat(path)))?.dev;
}

/** @returns undefined for what is not there, or doesn't answer */
async function patiently<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await waitFor('a file system', answer, { timeoutMs: PATIENCE_MS });
  } catch {
    return undefined;
  }
}
