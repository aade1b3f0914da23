/**
 * One guest hammers one counter in memory and on both of its disks, and rewrites its memory, while it is captured again
 * and again by each method. Every image is restored by every method beside it, and one of the restored guests is saved
 * and restored once more; each time, memory and all disks must agree.
 *
 * The tests run a short campaign of a fixed seed. A long one: `STASIS_CAPTURES=300 STASIS_SEED=42 node --test
 * test/campaign/captures.test.ts`, with so many captures by each method. What is done in a round follows from the seed and the
 * round's number, so `STASIS_ROUND=17` begins with that one; its moments are the machine's.
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { test } from 'node:test';
import type { CaptureMethod } from '../../src/qemu/capture/capture.ts';
import { background, whyNotBackground } from '../../src/qemu/capture/background.ts';
import { precopy } from '../../src/qemu/capture/precopy.ts';
import { stopped } from '../../src/qemu/capture/stopped.ts';
import type { RestoreMethod } from '../../src/qemu/restore/restore.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { lazy } from '../../src/qemu/restore/lazy.ts';
import { mapped } from '../../src/qemu/restore/mapped.ts';
import { Lab } from '../qemu/lab.ts';
import { assertWhole, WitnessGuest, type Captured } from '../qemu/witness-guest.ts';
import { Random } from '../support/random.ts';

const CAPTURE_METHODS: readonly CaptureMethod[] = [precopy, background, stopped];
const RESTORE_METHODS: readonly RestoreMethod[] = [eager, mapped, lazy];

const SEED = Number(process.env['STASIS_SEED'] ?? 1);
const FIRST_ROUND = Number(process.env['STASIS_ROUND'] ?? 0);
const ROUNDS = Number(process.env['STASIS_CAPTURES'] ?? 2);
const CALM_MS = 50;

test(
  `${ROUNDS} captures by each method, seed ${SEED}: memory and every disk always agree`,
  { timeout: 24 * 3_600_000 },
  async (context) => {
    await using lab = await Lab.open();
    await using guest = await WitnessGuest.boot(lab, 'guest');
    for (let round = FIRST_ROUND; round < FIRST_ROUND + ROUNDS; round += 1) {
      const random = new Random(SEED + round * 0x9e3779b9);
      let isDone = false;
      await context.test(`round ${round}`, async (inRound) => {
        for (const method of CAPTURE_METHODS)
          inRound.diagnostic(await captureAndRestore(lab, guest, method, random));
        isDone = true;
      });
      assert.ok(isDone, `begin again here: STASIS_SEED=${SEED} STASIS_ROUND=${round}`);
    }
    await using witness = await guest.witness();
    await assertWhole(witness);
  },
);

/** @returns how it went */
async function captureAndRestore(
  lab: Lab,
  guest: WitnessGuest,
  method: CaptureMethod,
  random: Random,
): Promise<string> {
  await stir(guest, random);
  const captured = await captureBetween(guest, method);
  await pace(guest, 0, CALM_MS); // it leaves the processor to those that are restored, but goes on
  await restoreByAll(lab, captured, random);
  await guest.flatten();
  await discard(captured);
  const { pause, bytesWritten, passes } = captured.result;
  const pauseText = pause === undefined ? '' : `, pause ${pause.pauseMs.toFixed(1)} ms`;
  return `${method.name}: ${bytesWritten >> 20} MiB in ${passes} passes${pauseText}`;
}

/** What memory holds, and how fast memory and disks change, is new for each capture. */
async function stir(guest: WitnessGuest, random: Random): Promise<void> {
  {
    await using witness = await guest.witness();
    await witness.fill(random.between(1, 2 ** 31), random.between(16, 40));
  }
  await pace(guest, random.of([0, 30, 150]), random.of([0, 0, 1]));
}

/** How fast the guest changes its memory, and how long it waits between two rounds of its counter. */
async function pace(guest: WitnessGuest, dirtyMBps: number, intervalMs: number): Promise<void> {
  await using witness = await guest.witness();
  await witness.dirty(dirtyMBps);
  await witness.interval(intervalMs);
}

/** The image is of an instant between the command and its end, and the guest goes on from there. */
async function captureBetween(guest: WitnessGuest, method: CaptureMethod): Promise<Captured> {
  await using witness = await guest.witness();
  const before = (await witness.status()).counter;
  const captured = await guest.capture(method);
  const after = await witness.status();
  assert.equal(after.mismatches, 0, 'the guest itself is not harmed');
  const { counters } = captured;
  const [least, most] = [Math.min(...counters), Math.max(...counters)];
  assert.ok(most - least <= 1, `disks of one instant: ${counters.join(' and ')}`);
  assert.ok(before - 1 <= least, `not older than the command: ${least}, when it was ${before} before`);
  assert.ok(most <= after.counter, `older than the present: ${most}, now ${after.counter}`);
  return captured;
}

/** Restores the image by every method, all at once; one of the guests is saved and restored once more. */
async function restoreByAll(lab: Lab, captured: Captured, random: Random): Promise<void> {
  const twice = random.between(0, RESTORE_METHODS.length - 1);
  const again = random.next();
  await Promise.all(
    RESTORE_METHODS.map(async (method, index) => {
      await using guest = await WitnessGuest.restore(
        lab,
        `${captured.method}-${method.name}`,
        captured,
        method,
      );
      await assertRestored(guest, captured);
      if (index === twice) await saveAndRestore(lab, guest, new Random(again * 2 ** 32));
    }),
  );
}

async function saveAndRestore(lab: Lab, guest: WitnessGuest, random: Random): Promise<void> {
  await guest.arrived();
  const isTrackable = (await whyNotBackground(guest.qmp)) === undefined;
  const possible = CAPTURE_METHODS.filter((method) => isTrackable || method !== background);
  await pace(guest, 30, 0);
  const captured = await captureBetween(guest, random.of(possible));
  await using next = await WitnessGuest.restore(lab, 'again', captured, random.of(RESTORE_METHODS));
  await assertRestored(next, captured);
  await discard(captured);
}

async function assertRestored(guest: WitnessGuest, captured: Captured): Promise<void> {
  await pace(guest, 0, CALM_MS); // what is rewritten can't be found wrong any more
  await using witness = await guest.witness();
  const { counter } = await assertWhole(witness);
  assert.ok(counter >= Math.max(...captured.counters), 'it goes on from the image');
}

async function discard({ file, layers }: Captured): Promise<void> {
  for (const path of [file, ...layers]) await rm(path, { force: true });
}
