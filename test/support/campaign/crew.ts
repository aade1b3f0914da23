/** The processes that live histories, some at once, each history in one of them. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { extname, join } from 'node:path';
import type { Step } from './history.ts';

const PROGRAM = join(import.meta.dirname, `../../campaign/worker${extname(import.meta.filename)}`);

export interface HistoryTask {
  readonly seed: number;
  readonly steps: number;
  /** by its name */
  readonly ground: string | undefined;
}

/** What a worker says. */
export type Report =
  | { readonly kind: 'ready' }
  | { readonly kind: 'step'; readonly step: Step }
  | { readonly kind: 'end'; readonly end: HistoryEnd };

export type HistoryEnd =
  | { readonly how: 'lived'; readonly struck: readonly string[] }
  /** by whoever wanted the campaign to end */
  | { readonly how: 'stopped' }
  | { readonly how: 'broken'; readonly what: string; readonly daemonLog: string };

export interface CrewOptions {
  readonly jobs: number;
  readonly signal: AbortSignal;
  readonly onStep: (task: HistoryTask, step: Step) => void;
  readonly onEnd: (task: HistoryTask, end: HistoryEnd) => Promise<void>;
}

/** Lets all of them happen, or as many as begin before it is ended: those are then ended after the step they are at. */
export async function liveAll(tasks: readonly HistoryTask[], options: CrewOptions): Promise<void> {
  const left = tasks.values();
  await Promise.all(Array.from({ length: options.jobs }, () => work(left, options)));
}

async function work(left: IteratorObject<HistoryTask>, options: CrewOptions): Promise<void> {
  let worker: ChildProcess | undefined;
  try {
    // All workers take theirs from the same row.
    for (let next = left.next(); next.done !== true && !options.signal.aborted; next = left.next()) {
      worker ??= await startWorker();
      const task = next.value;
      const end = await letLive(worker, task, options);
      if (worker.exitCode !== null || worker.signalCode !== null) worker = undefined;
      await options.onEnd(task, end);
    }
  } finally {
    if (worker !== undefined) await endWorker(worker);
  }
}

async function endWorker(worker: ChildProcess): Promise<void> {
  const ended = once(worker, 'exit');
  worker.disconnect();
  await ended;
}

async function startWorker(): Promise<ChildProcess> {
  const worker = fork(PROGRAM);
  await once(worker, 'message');
  return worker;
}

async function letLive(
  worker: ChildProcess,
  task: HistoryTask,
  { signal, onStep }: CrewOptions,
): Promise<HistoryEnd> {
  const { promise, resolve } = Promise.withResolvers<HistoryEnd>();
  const onMessage = (report: Report) => {
    if (report.kind === 'step') onStep(task, report.step);
    if (report.kind === 'end') resolve(report.end);
  };
  const onExit = (code: number | null, killedBy: string | null) =>
    resolve({ how: 'broken', what: `its process ended: ${killedBy ?? code}`, daemonLog: '' });
  const stop = () => worker.send('stop');
  worker.on('message', onMessage).once('exit', onExit);
  signal.addEventListener('abort', stop);
  try {
    worker.send(task);
    return await promise;
  } finally {
    signal.removeEventListener('abort', stop);
    worker.off('message', onMessage).off('exit', onExit);
  }
}
