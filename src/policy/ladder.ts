/**
 * The way down for one guest: saved, if that fails or takes too long shut down, and if that does too its plug pulled. Each
 * rung is an operation of the guest's own, with a time limit of its own; at the end of the host's time comes the last one.
 */
import type { OperationKind, Outcome } from '../api/schemas.ts';
import { DEFAULT_IMAGE } from '../api/constants.ts';
import { StasisError, messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { shutdownProcedure, stopProcedure } from '../guests/power.ts';
import { saveProcedure } from '../images/save.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { killQemu } from '../qemu/process/process.ts';
import type { Candidate, PlannedEnd } from './budget.ts';
import { runOnGuest, type Limits } from './guest-work.ts';

const RUNGS = ['save', 'shutdown', 'stop'] as const;
type Rung = (typeof RUNGS)[number];

/** What a guest needs at the least to do anything about its power button. */
const SHORTEST_SHUTDOWN_MS = 1_000;
/** For pulling the plug: there is nothing below it. */
const LAST_RUNG_MS = 30_000;

/** How long a save that is given up has for undoing itself. */
const LEAST_UNDO_MS = 200;
const MOST_UNDO_MS = 5_000;

export interface Ladder {
  readonly host: Host;
  readonly engine: OperationEngine;
  /** the whole undertaking is called off: guests stay where they are */
  readonly signal: AbortSignal;
  /** until saves and shutdowns must have ended */
  readonly leftMs: () => number;
}

export interface SaveWatch {
  /** gives this guest's save up for a shutdown */
  readonly signal: AbortSignal;
  readonly onBegun: (id: string) => void;
}

/** How a guest came down. */
export interface Descent {
  readonly candidate: Candidate;
  readonly isSaved: boolean;
  readonly isRunning: boolean;
  readonly outcome: Outcome;
}

/** Takes a guest down from the rung that was planned. Never rejects for what happens to the guest. @throws when it is called off */
export async function goDown(
  ladder: Ladder,
  { candidate, action, why }: PlannedEnd,
  watch?: SaveWatch,
): Promise<Descent> {
  const startedMs = performance.now();
  const reasons = action === candidate.wanted ? [] : [why];
  for (const rung of RUNGS.slice(RUNGS.indexOf(action))) {
    try {
      await take(ladder, candidate, rung, watch);
      return described(candidate, rung, reasons, startedMs);
    } catch (error) {
      ladder.signal.throwIfAborted();
      reasons.push(messageOf(error));
    }
  }
  return described(candidate, null, reasons, startedMs);
}

/** @param rung where it came to rest; null: nowhere @param reasons why not higher up */
function described(
  candidate: Candidate,
  rung: Rung | null,
  reasons: readonly string[],
  startedMs: number,
): Descent {
  const { name, wanted } = candidate;
  const what = rung === null ? 'it runs on' : PAST[rung];
  const outcome: Outcome = {
    name,
    outcome: rung === wanted ? 'done' : 'failed',
    message: rung === wanted ? what : `${what}: ${reasons.join('; ')}`,
    wanted,
    tookMs: Math.round(performance.now() - startedMs),
  };
  return { candidate, isSaved: rung === 'save', isRunning: rung === null, outcome };
}

const PAST = { save: 'saved', shutdown: 'shut down', stop: 'stopped' } as const satisfies Record<
  Rung,
  string
>;

async function take(ladder: Ladder, candidate: Candidate, rung: Rung, watch?: SaveWatch): Promise<void> {
  const { host, engine } = ladder;
  const about = (kind: OperationKind, image: string | null) => ({
    kind,
    subject: { guest: candidate.guest, guestName: candidate.name, image },
  });
  switch (rung) {
    case 'save': {
      const limits = limit(ladder, candidate, 'its save', watch);
      return runOnGuest(engine, saveProcedure(host), { ...about('save', DEFAULT_IMAGE), args: {} }, limits);
    }
    case 'shutdown': {
      const limitMs = Math.min(candidate.timeLimitMs, ladder.leftMs());
      if (limitMs < SHORTEST_SHUTDOWN_MS)
        throw new StasisError('timeout', 'there was no time left for a shutdown');
      const args = { timeoutSeconds: Math.ceil(limitMs / 100) / 10 };
      const limits = limit(ladder, candidate, 'its shutdown');
      return runOnGuest(engine, shutdownProcedure(host), { ...about('shutdown', null), args }, limits);
    }
    case 'stop': {
      await freeByForce(ladder, candidate.guest);
      const limits = { signal: AbortSignal.any([ladder.signal, AbortSignal.timeout(LAST_RUNG_MS)]) };
      return runOnGuest(engine, stopProcedure(host), { ...about('stop', null), args: {} }, limits);
    }
    default:
      return rung satisfies never;
  }
}

/** The guest's own limit, the host's, and being called off. */
function limit(ladder: Ladder, { timeLimitMs }: Candidate, what: string, watch?: SaveWatch): Limits {
  const leftMs = Math.max(0, ladder.leftMs());
  const limitMs = Math.min(timeLimitMs, leftMs);
  const isHosts = leftMs < timeLimitMs;
  const message = isHosts
    ? `${what} did not end in the time that was left`
    : `${what} did not end within its time limit of ${timeLimitMs / 1000} s`;
  const timeout = timeoutWith(limitMs, new StasisError('timeout', message));
  const signals = [ladder.signal, timeout, ...(watch === undefined ? [] : [watch.signal])];
  // The rungs below need time too.
  const undoMs = () => Math.min(MOST_UNDO_MS, Math.max(LEAST_UNDO_MS, ladder.leftMs() / 2));
  return {
    signal: AbortSignal.any(signals),
    undoMs,
    ...(watch === undefined ? {} : { onBegun: watch.onBegun }),
  };
}

/** As `AbortSignal.timeout`, with a reason that says what it was for. */
export function timeoutWith(limitMs: number, reason: StasisError): AbortSignal {
  const abort = new AbortController();
  // The longest time that a timer can wait; what is longer is no limit.
  if (limitMs < 2 ** 31) setTimeout(() => abort.abort(reason), limitMs).unref();
  return abort.signal;
}

/** What still holds the guest, say a save whose QEMU doesn't answer, ends with that QEMU. */
async function freeByForce({ host, engine }: Ladder, guest: string): Promise<void> {
  const process = host.supervisor.find(guest);
  if (engine.holderOf(guest) !== undefined && process !== undefined) await killQemu(process.runDirectory);
}
