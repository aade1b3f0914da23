/** A process that lives the histories it is told to, one after the other, and tells what comes of them (test/support/campaign/crew.ts). */
import type { HistoryEnd, HistoryTask, Report } from '../support/campaign/crew.ts';
import { BrokenRule, live } from '../support/campaign/history.ts';
import { kindsNamed, type GroundKind } from '../support/grounds.ts';
import { Lab } from '../support/lab.ts';

const stop = new AbortController();
// Who started it decides when it ends, also when both get a signal.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => stop.abort(new Error('there is nobody to tell')));
process.on('message', (message: HistoryTask | 'stop') => {
  if (message === 'stop') stop.abort(new Error('stopped'));
  else void history(message).then((end) => tell({ kind: 'end', end }));
});
await leaveCompiled();
tell({ kind: 'ready' });

/** A daemon that ends in peace leaves what Node compiled to all after it; one that is killed doesn't. */
async function leaveCompiled(): Promise<void> {
  await using lab = await Lab.create();
  await lab.endDaemon('SIGTERM');
}

function tell(report: Report): void {
  if (process.connected) process.send?.(report);
}

async function history({ seed, steps, ground }: HistoryTask): Promise<HistoryEnd> {
  try {
    const struck = await live({
      ...{ seed, steps, ground: groundNamed(ground), signal: stop.signal },
      onStep: (step) => tell({ kind: 'step', step }),
    });
    return { how: 'lived', struck };
  } catch (error) {
    if (stop.signal.aborted) return { how: 'stopped' };
    return {
      ...{ how: 'broken', what: described(error) },
      daemonLog: error instanceof BrokenRule ? error.daemonLog : '',
    };
  }
}

function described(error: unknown): string {
  if (error instanceof SuppressedError)
    return `${described(error.error)}\n  after ${described(error.suppressed)}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function groundNamed(name: string | undefined): GroundKind | undefined {
  return name === undefined ? undefined : kindsNamed(name)[0];
}
