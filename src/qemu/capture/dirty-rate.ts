import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import { waitFor } from '../wait.ts';

/** Long enough to see 5 MB/s in a guest of 1 GiB, short enough to precede every save. */
const MEASURED_MS = 100;
/** Of each GiB so many pages are looked at, twice: 16 MiB to hash. */
const SAMPLED_PAGES_PER_GIB = 4096;
const LOOK_AGAIN_MS = 5;
const TIMEOUT_MS = 30_000;
const MIB = 1024 ** 2;

/** QEMU measures one at a time, and refuses another. */
const underWay = new WeakMap<QmpClient, Promise<unknown>>();

/**
 * How fast a running guest changes its memory: QEMU compares a sample of the pages with what they were 100 ms before
 * (`calc-dirty-rate`, mode page-sampling). A page changed twice in that time counts once. The guest goes on meanwhile.
 * @returns bytes per second
 * @throws StasisError `qemu-failed`, `timeout`, `cancelled`, `guest-crashed`
 */
export function measureDirtyRate(qmp: QmpClient, signal?: AbortSignal): Promise<number> {
  const before = underWay.get(qmp) ?? Promise.resolve();
  const measured = waitFor('another measurement of its dirty rate', before, { signal }).then(() =>
    measure(qmp, signal),
  );
  underWay.set(qmp, Promise.allSettled([before, measured]));
  return measured;
}

async function measure(qmp: QmpClient, signal: AbortSignal | undefined): Promise<number> {
  await finished(qmp, signal); // one that was given up, or another client's
  await qmp.execute('calc-dirty-rate', {
    'calc-time': MEASURED_MS,
    'calc-time-unit': 'millisecond',
    'sample-pages': SAMPLED_PAGES_PER_GIB,
    mode: 'page-sampling',
  });
  await delay(MEASURED_MS, undefined, { signal });
  return (await finished(qmp, signal)) * MIB;
}

/** Waits for the end of a measurement, which nothing announces. @returns MiB per second, 0 when nothing was measured */
async function finished(qmp: QmpClient, signal: AbortSignal | undefined): Promise<number> {
  const giveUp = performance.now() + TIMEOUT_MS;
  for (;;) {
    const { status, 'dirty-rate': rate = 0 } = await qmp.execute('query-dirty-rate', undefined, { signal });
    if (status !== 'measuring') return Math.max(0, rate);
    if (performance.now() > giveUp)
      throw new StasisError('timeout', 'QEMU does not end measuring a dirty rate');
    await delay(LOOK_AGAIN_MS);
  }
}
