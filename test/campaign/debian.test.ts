/**
 * A real Debian system works on databases and files while it is saved again and again, by every method. Each image is looked
 * at from outside: its disk is that of a machine which lost its power then, and its memory says the same as that disk. Then it is
 * restored, by every method in turn, in place or as a clone: memory and disk are those of the image before it runs, and the system
 * goes on: its databases are whole, its memory agrees with its disk, its agent answers.
 *
 * The tests run a short campaign of a fixed seed. A long one: `STASIS_DEBIAN_RESTORES=20 STASIS_SEED=42 node --test
 * test/campaign/debian.test.ts`.
 */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Image } from '../../src/api/schemas.ts';
import { checkDebian, checkDebianGoesOn, startDebian } from '../support/debian-guest.ts';
import { assertOneInstant, readImage, type Contents } from '../support/debian-image.ts';
import { Lab } from '../support/lab.ts';
import { Random } from '../support/random.ts';

const SAVE_METHODS = ['background', 'precopy', 'stopped'] as const;
const RESTORE_METHODS = ['eager', 'mapped', 'lazy'] as const;

const SEED = Number(process.env['STASIS_SEED'] ?? 1);
const ROUNDS = Number(process.env['STASIS_DEBIAN_RESTORES'] ?? 1);
/** So many images are kept: those before are deleted, and their layers merged, under the load. */
const KEPT = 2;
const LONGEST_WAIT_MS = 3_000;
const GUEST = 'debian';

test(
  `${ROUNDS} restores of a Debian system under load, seed ${SEED}: file system, databases and memory are of one instant`,
  { timeout: 24 * 3_600_000 },
  async (context) => {
    await using lab = await Lab.create();
    const booting = stopwatch();
    await startDebian(lab, GUEST);
    context.diagnostic(`boot ${booting()} ms`);
    const random = new Random(SEED);
    let earlier: Contents | undefined;
    for (let round = 0; round < ROUNDS; round += 1) {
      const { image, contents } = await saveAndLook(context, lab, round, random);
      if (earlier !== undefined) assertToldApart(earlier, contents);
      earlier = contents;
      await restoreAndLook(context, lab, image, contents, round);
      if (round >= KEPT) await lab.client.deleteSaveImage(GUEST, `round-${round - KEPT}`);
    }
  },
);

/** An image of a random moment, once what it holds has been found right. Every third one is of frozen file systems. */
async function saveAndLook(
  context: TestContext,
  lab: Lab,
  round: number,
  random: Random,
): Promise<{ image: Image; contents: Contents }> {
  const name = `round-${round}`;
  const before = await checkDebian(lab, GUEST);
  await delay(random.between(0, LONGEST_WAIT_MS));
  const method = await possibleMethod(lab, round);
  const isFrozen = round % 3 === 1;
  const image = await lab.client.createSaveImage(GUEST, {
    name,
    ...(method === 'stopped' ? {} : { live: true, method }),
    ...(isFrozen ? { quiesce: 'require' } : {}),
  });
  assert.equal(image.quiesce, isFrozen ? 'frozen' : 'skipped');
  context.diagnostic(
    `${name}: ${method}, ${image.quiesce}, ${image.saveMs} ms, pause ${image.pauseMs?.toFixed(1) ?? '–'} ms`,
  );
  // A file system that was frozen is clean as it is; any other once its journal has been replayed.
  const contents = await readImage(image, isFrozen ? 'none' : 'journal');
  assertOneInstant(contents);
  for (const [writer, { done }] of Object.entries(before))
    assert.ok((contents.held[writer] ?? 0) >= done, `${writer}: not older than the command`);
  return { image, contents };
}

/** The comparison that finds an image right finds it wrong when its halves are those of two images. */
function assertToldApart(earlier: Contents, later: Contents): void {
  assert.throws(() => assertOneInstant({ claims: later.claims, held: earlier.held }), assert.AssertionError);
  assert.throws(() => assertOneInstant({ claims: earlier.claims, held: later.held }), assert.AssertionError);
}

/** All in turn, each after every way to restore. A guest that was restored mapped can't be followed in the background. */
async function possibleMethod(lab: Lab, round: number): Promise<(typeof SAVE_METHODS)[number]> {
  const wanted = SAVE_METHODS[(round + Math.floor(round / SAVE_METHODS.length)) % SAVE_METHODS.length];
  const { methods } = await lab.client.predictSave(GUEST);
  const hasObstacle = methods.some(({ method, obstacle }) => method === wanted && obstacle !== null);
  return wanted === undefined || hasObstacle ? 'precopy' : wanted;
}

/**
 * The guest itself goes back to the image: exactly, which is seen before it runs, and then goes on. Every other time a clone
 * begins there too, beside it.
 */
async function restoreAndLook(
  context: TestContext,
  lab: Lab,
  { name }: Image,
  contents: Contents,
  round: number,
): Promise<void> {
  const method = RESTORE_METHODS[round % RESTORE_METHODS.length] ?? 'eager';
  const restoring = stopwatch();
  await lab.client.restoreSaveImage(GUEST, name, { method, paused: true });
  context.diagnostic(`${name}: restored ${method}, ${restoring()} ms`);
  assert.deepEqual(
    await contentsNow(lab),
    contents,
    'memory and disk are those of the image, to the last step',
  );
  await lab.client.resume(GUEST);
  await checkDebianGoesOn(lab, GUEST, contents.claims);
  if (round % 2 === 1) await cloneAndLook(lab, name, contents.claims);
}

/** What a guest that stands still holds, by an image that is made for this and read from outside. */
async function contentsNow(lab: Lab): Promise<Contents> {
  const image = await lab.client.createSaveImage(GUEST, { name: 'now', live: true });
  const contents = await readImage(image);
  await lab.client.deleteSaveImage(GUEST, 'now');
  return contents;
}

async function cloneAndLook(lab: Lab, image: string, claims: Contents['claims']): Promise<void> {
  const clone = `${image}-clone`;
  await lab.client.restoreSaveImage(GUEST, image, { asNewGuest: clone });
  await checkDebianGoesOn(lab, clone, claims);
  await checkDebian(lab, GUEST);
  await lab.client.stop(clone);
  await lab.client.undefineGuest(clone);
}

function stopwatch(): () => number {
  const started = performance.now();
  return () => Math.round(performance.now() - started);
}
