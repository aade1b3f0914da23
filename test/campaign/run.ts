/** `npm run campaign`: see --help. */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { live } from '../support/campaign/history.ts';
import { GROUNDS } from '../support/grounds.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    histories: { type: 'string', default: '20' },
    steps: { type: 'string', default: '12' },
    ground: { type: 'string' },
  },
});
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
for (
  let seed = Number(values.seed);
  seed < Number(values.seed) + Number(values.histories) && !stop.signal.aborted;
  seed += 1
) {
  const begin = performance.now();
  try {
    await live({
      seed,
      steps: Number(values.steps),
      ground: GROUNDS.find(({ name }) => name === values.ground),
      signal: stop.signal,
      onStep: (step) =>
        console.log(`  ${seed} ${step.action} | ${step.fault} | ${step.outcome} | ${step.state}`),
    });
    console.log(`${seed} ok ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  } catch (error) {
    const cause = error instanceof Error ? (error.cause as { error: unknown; log: string }) : undefined;
    console.log(
      `${seed} FAILED`,
      String(error),
      error instanceof SuppressedError ? [error.error, error.suppressed] : (cause?.error ?? error),
    );
    await writeFile(`/tmp/campaign-${seed}.log`, cause?.log ?? '');
  }
}
