/**
 * Captures that are cancelled while the host is busy, at any moment or because the guest can't be followed: it runs on
 * each time, and its memory is captured whole in the end. Without the care of `cancelMigration` some are lost, the more
 * the busier the host. A long campaign: `STASIS_CANCELS=500 STASIS_SEED=42 node --test test/campaign/cancelled.test.ts`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StasisError } from '../../src/errors.ts';
import type { CaptureMethod } from '../../src/qemu/capture/capture.ts';
import { background } from '../../src/qemu/capture/background.ts';
import { NotConverging, precopy } from '../../src/qemu/capture/precopy.ts';
import { stopped } from '../../src/qemu/capture/stopped.ts';
import { verifyMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import { isRunning, resumeGuest } from '../../src/qemu/process/run-state.ts';
import { Lab, MEMORY_BYTES } from '../qemu/lab.ts';
import { Random } from '../support/random.ts';

const METHODS: readonly CaptureMethod[] = [precopy, stopped, background];
const SEED = Number(process.env['STASIS_SEED'] ?? 1);
const CANCELS = Number(process.env['STASIS_CANCELS'] ?? 4);
/** Guests that keep the processors busy: what QEMU does wrong only shows when its threads have to wait. */
const BUSY_GUESTS = 3;
const LATEST_MS = 150;

test(`${CANCELS} captures cancelled by each method, seed ${SEED}: the guest runs on`, async () => {
  await using lab = await Lab.open();
  const { qmp } = await lab.launch('guest');
  for (let busy = 0; busy < BUSY_GUESTS; busy += 1) await lab.launch(`busy-${busy}`);
  const random = new Random(SEED);
  const nothing = async (): Promise<void> => undefined;
  const file = lab.path('memory');
  for (const method of METHODS) {
    for (let cancelled = 0; cancelled < CANCELS; cancelled += 1) {
      const signal = AbortSignal.timeout(random.between(0, LATEST_MS));
      await capturedOrCancelled(method, { qmp, file, onPaused: nothing, signal });
      await capturedOrCancelled(method, { qmp, file, onPaused: nothing, lastPassMs: 1 });
      assert.equal(await isRunning(qmp), true, `${method.name}, capture ${cancelled}`);
    }
    await method.capture({ qmp, file, onPaused: nothing });
    await verifyMemoryFile(file, {
      offset: STREAM_OFFSET,
      machineType: 'pc-q35-10.0',
      memoryBytes: MEMORY_BYTES,
    });
    await resumeGuest(qmp);
  }
});

/** Which of the two it is, is a matter of luck. */
async function capturedOrCancelled(
  method: CaptureMethod,
  request: Parameters<CaptureMethod['capture']>[0],
): Promise<void> {
  try {
    await method.capture(request);
    await resumeGuest(request.qmp);
  } catch (error) {
    const isCancelled = error instanceof NotConverging || StasisError.from(error).code === 'cancelled';
    if (!isCancelled || request.qmp.isClosed) throw error;
  }
}
