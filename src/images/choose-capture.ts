/**
 * How a live save will be made: what each method would cost this guest now, which is the best that guest and host allow,
 * and what to do when it doesn't work out. Nothing is touched.
 */
import { LIVE_METHODS, type LiveMethod } from '../api/constants.ts';
import type { SavePrediction } from '../api/schemas.ts';
import { recentCaptures } from '../catalog/captures.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import { BASE_PAGE_BYTES, residentGuestBytes } from '../guests/host-memory.ts';
import type { Host } from '../guests/host.ts';
import { whyNotBackground } from '../qemu/capture/background.ts';
import { measureDirtyRate } from '../qemu/capture/dirty-rate.ts';
import { isArriving } from '../qemu/migration.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { isRunning } from '../qemu/process/run-state.ts';
import { rehearseCopies, type CopyTime } from './capture-disks.ts';
import {
  better,
  longestLastPass,
  predict,
  SCATTERED,
  type GuestLoad,
  type MethodPrediction,
} from './prediction.ts';

/** What copies of disks may add to a pause for which the user has set no limit: an overlay takes a millisecond. */
const COPY_BUDGET_MS = 50;
/** So many of a guest's latest saves are looked at: the machine may have changed since earlier ones. */
const EXPERIENCE = 50;

/** What a live save of a guest would be like, by each method. */
export interface Assessment {
  readonly load: GuestLoad;
  /** without the copies of disks */
  readonly methods: readonly (MethodPrediction & { readonly obstacle: string | null })[];
  /** what copies of disks would add to the pause */
  readonly copies: readonly CopyTime[];
}

export interface Wish {
  /** what the user insists on */
  readonly method?: LiveMethod | undefined;
  readonly maxPauseMs?: number | undefined;
}

/** What a live save goes by; decided when it begins, since a plan can not wait for memory that is still arriving. */
export interface CaptureChoice {
  readonly method: LiveMethod;
  /** what the guest did when it was looked at */
  readonly dirtyBytesPerSecond: number;
  readonly modelMs: number;
  readonly predictedMs: number;
  /** the most that may be left to write when precopy stops the guest; null: whatever it takes */
  readonly lastPassMs: number | null;
  /** disks that could be copied, which would take too long: they are switched to overlays this time */
  readonly switched: readonly CopyTime[];
  /** how long a copy may take, of all disks together */
  readonly copyBudgetMs: number;
  /** what to do when precopy gets nowhere */
  readonly fallback: { readonly modelMs: number; readonly predictedMs: number } | null;
}

/** Measures how fast the guest dirties its memory (a tenth of a second) and predicts. @throws StasisError `qemu-failed`, `guest-crashed` */
export async function assess(
  host: Host,
  guest: { readonly uuid: string; readonly definition: Definition },
  process: QemuProcess,
  signal?: AbortSignal,
): Promise<Assessment> {
  const { uuid, definition } = guest;
  const { memoryBytes, hugePageBytes = BASE_PAGE_BYTES } = definition;
  const load: GuestLoad = {
    memoryBytes,
    residentBytes: await residentGuestBytes(process, definition),
    hostPageBytes: hugePageBytes,
    diskCount: definition.disks.filter((disk) => !disk.readonly).length,
    dirtyBytesPerSecond: await measureDirtyRate(process.qmp, signal),
  };
  const obstacles = { precopy: null, background: (await whyNotBackground(process.qmp)) ?? null };
  const methods = [];
  for (const method of LIVE_METHODS) {
    const own = await recentCaptures(host.catalog, method, EXPERIENCE, uuid);
    const experience = own.length > 0 ? own : await recentCaptures(host.catalog, method, EXPERIENCE);
    methods.push({ ...predict(method, load, experience), obstacle: obstacles[method] });
  }
  return { load, methods, copies: await rehearseCopies(host, definition, signal) };
}

/**
 * The best way that is possible and within what is wished.
 * @throws StasisError `pause-too-long` with what each method would cost; `unsupported` when the wished one isn't possible
 */
export function choose({ load, methods, copies }: Assessment, wish: Wish, guestName: string): CaptureChoice {
  const { maxPauseMs = Infinity } = wish;
  const wanted = methods.filter(({ method }) => wish.method === undefined || method === wish.method);
  const possible = wanted.filter(({ obstacle }) => obstacle === null);
  if (possible.length === 0) {
    const reason = wanted.map(({ obstacle }) => obstacle).join('; ');
    throw new StasisError('unsupported', `guest ${guestName} can't be captured by ${wish.method}: ${reason}`);
  }
  const best = better(possible.filter(({ pauseMs }) => pauseMs <= maxPauseMs));
  if (best === undefined) throw tooLong(guestName, methods, maxPauseMs);
  const copyBudgetMs = wish.maxPauseMs === undefined ? COPY_BUDGET_MS : maxPauseMs - best.pauseMs;
  const { copied, switched } = withinBudget(copies, copyBudgetMs);
  const copyMs = sum(copied);
  const fallback = possible.find(
    ({ method, pauseMs }) =>
      method === 'background' && method !== best.method && pauseMs + copyMs <= maxPauseMs,
  );
  const lastPassMs = Math.min(
    // What is written in so long at full speed takes longer when it lies scattered.
    Math.max(1, (maxPauseMs - best.fixedMs - copyMs) / SCATTERED),
    fallback === undefined ? Infinity : longestLastPass(fallback),
  );
  return {
    method: best.method,
    dirtyBytesPerSecond: load.dirtyBytesPerSecond,
    modelMs: best.modelMs + copyMs,
    predictedMs: best.pauseMs + copyMs,
    lastPassMs: lastPassMs === Infinity ? null : lastPassMs,
    switched,
    copyBudgetMs,
    fallback:
      fallback === undefined
        ? null
        : { modelMs: fallback.modelMs + copyMs, predictedMs: fallback.pauseMs + copyMs },
  };
}

/** The quickest first, as many as fit: they are made one beside the other, but on one file system one after the other. */
function withinBudget(
  copies: readonly CopyTime[],
  budgetMs: number,
): { readonly copied: readonly CopyTime[]; readonly switched: readonly CopyTime[] } {
  const quickestFirst = copies.toSorted((a, b) => a.copyMs - b.copyMs);
  let count = 0;
  while (count < copies.length && sum(quickestFirst.slice(0, count + 1)) <= budgetMs) count += 1;
  return { copied: quickestFirst.slice(0, count), switched: quickestFirst.slice(count) };
}

function sum(copies: readonly CopyTime[]): number {
  return copies.reduce((total, { copyMs }) => total + copyMs, 0);
}

/**
 * What `save --live` would do now, without doing it.
 * @throws StasisError as the save itself would: `pause-too-long`, `unsupported`, `invalid-state`
 */
export async function predictSave(host: Host, guest: GuestRecord, wish: Wish): Promise<SavePrediction> {
  const process = host.supervisor.get(guest.uuid, guest.name);
  if (isArriving((await process.qmp.execute('query-migrate')).status)) {
    throw new StasisError(
      'invalid-state',
      `the memory of guest ${guest.name} is still arriving, which a save waits for; ask again when it has`,
      { guest: guest.name },
    );
  }
  const assessment = await assess(host, { uuid: guest.uuid, definition: storedDefinition(guest) }, process);
  const { load, methods, copies } = assessment;
  const choice = (await isRunning(process.qmp)) ? choose(assessment, wish, guest.name) : null;
  const isCopied = ({ disk }: CopyTime) => !choice?.switched.some((switched) => switched.disk === disk);
  const copyMs = sum(copies.filter(isCopied));
  return {
    guest: guest.name,
    method: choice?.method ?? null,
    predictedPauseMs: choice?.predictedMs ?? null,
    dirtyBytesPerSecond: load.dirtyBytesPerSecond,
    memoryBytes: load.memoryBytes,
    residentBytes: load.residentBytes,
    hostPageBytes: load.hostPageBytes,
    disks: load.diskCount,
    copies: copies.map((copy) => ({ ...copy, copied: isCopied(copy) })),
    methods: methods.map(({ method, pauseMs, captureMs, writtenBytes, basedOn, obstacle }) => ({
      method,
      predictedPauseMs: pauseMs + copyMs,
      predictedSaveMs: captureMs,
      predictedBytes: Math.round(writtenBytes),
      basedOn,
      obstacle,
    })),
  };
}

function tooLong(guestName: string, methods: Assessment['methods'], maxPauseMs: number): StasisError {
  const costs = methods.map(
    ({ method, pauseMs, obstacle }) => `${method} ${obstacle ?? `about ${Math.ceil(pauseMs)} ms`}`,
  );
  return new StasisError(
    'pause-too-long',
    `guest ${guestName} can't be saved live within ${maxPauseMs} ms of pause now (${costs.join('; ')}); allow more, or save it when it does less`,
    {
      details: {
        maxPauseMs,
        methods: methods.map(({ method, pauseMs, obstacle }) => ({
          method,
          predictedPauseMs: pauseMs,
          obstacle,
        })),
      },
    },
  );
}
