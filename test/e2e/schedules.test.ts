/** A guest that is saved by itself each few seconds, with daemons that are killed meanwhile: each due time once, and no image too many. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Image } from '../../src/api/schemas.ts';
import type { Retention, RetentionPlan, Schedule } from '../../src/api/schedules.ts';
import { StasisError } from '../../src/errors.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';
import { changeContent, checkHousekeeping, checkImages, type Content } from '../support/rules.ts';

const GUEST = 'web1';
let lab: Lab;
let content: Content;
before(async () => {
  lab = await Lab.create();
  await using witness = await lab.running(GUEST, {
    system: 'bare',
    disks: 1,
    extra: { retention: { keepLast: 2 } },
  });
  await witness.fill(1, 8);
  content = await changeContent(lab, GUEST, 1);
});
after(() => lab[Symbol.asyncDispose]());

const json = async <T>(...args: string[]): Promise<T> => {
  const { status, stdout, stderr } = await lab.cli([...args, '--json']);
  assert.equal(status, 0, `stasis ${args.join(' ')}: ${stderr}`);
  return fromStored<T>(stdout);
};
const images = () => lab.client.listSaveImages(GUEST);
const names = async () => (await images()).map(({ name }) => name);
/** It may be busy first: the guest is pruned after a save. */
const refuses = (code: string, work: () => Promise<unknown>) =>
  until(async () => {
    const refusal = await work().then(
      () => undefined,
      (error: unknown) => StasisError.from(error),
    );
    if (refusal?.code === 'busy') return undefined;
    assert.equal(refusal?.code, code);
    return refusal;
  });

/** Resolves when it is so: looked at after each event. */
async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const since = Math.max(0, ...(await lab.client.listEvents()).map(({ id }) => id));
  const found = await look();
  if (found !== undefined) return found;
  for await (const _ of lab.client.events({ guest: GUEST, since })) {
    const now = await look();
    if (now !== undefined) return now;
  }
  throw new Error('the daemon has ended');
}

test('a running guest is saved when it is due, and the image says by which schedule', async () => {
  // A guest that is being saved just now would be busy.
  await lab.client.addSchedule(GUEST, { name: 'yearly', cron: '@yearly' });
  await refuses('schedule-exists', () => lab.client.addSchedule(GUEST, { name: 'yearly', cron: '@daily' }));
  await lab.client.removeSchedule(GUEST, 'yearly');
  const [schedule] = await json<Schedule[]>('schedule', 'add', GUEST, 'often', '--cron', '*/3 * * * * *');
  assert.equal(schedule?.paused, false);
  assert.ok(Date.parse(schedule.nextRunAt ?? '') - Date.now() < 3001);
  const image = await until<Image>(async () => (await images()).at(-1));
  assert.match(image.name, /^often-\d{4}-\d\d-\d\dT\d{6}$/);
  assert.deepEqual([image.schedule, image.live, image.protected], ['often', true, false]);
});

test('a protected image is removed by nothing', async () => {
  const [first = ''] = await names();
  const image = await until(async () => lab.client.protectSaveImage(GUEST, first).catch(ifBusy));
  assert.equal(image.protected, true);
  await pause();
  await refuses('image-protected', () => lab.client.deleteSaveImage(GUEST, first));
  await refuses('image-protected', () => lab.client.restoreSaveImage(GUEST, first, { delete: true }));
  const text = await lab.cli(['images', GUEST]);
  assert.match(text.stdout, new RegExp(`${first} \\[protected\\]`));
  await lab.client.changeSchedule(GUEST, 'often', { paused: false });
});

/** Nothing is due from then on, and nothing under way. */
async function pause(): Promise<void> {
  await until(async () => {
    await lab.client.changeSchedule(GUEST, 'often', { paused: true }).catch(ifBusy);
    const [schedule] = (await lab.client.getGuest(GUEST)).schedules;
    const isDone = (await lab.client.listOperations()).every(({ state }) => state !== 'running');
    return schedule?.paused === true && schedule.lastRun?.state !== 'waiting' && isDone
      ? schedule
      : undefined;
  });
}

function ifBusy(error: unknown): undefined {
  if (!(error instanceof StasisError && error.code === 'busy')) throw error;
}

test('a daemon that dies in a run does it again, and one that dies after it does not', async () => {
  const [first = ''] = await names();
  const saves = async () =>
    (await lab.client.listOperations()).filter(
      ({ kind, schedule }) => kind === 'save' && schedule === 'often',
    );
  const isDone = async (image: string | null) =>
    (await saves()).some((save) => save.image === image && save.state === 'done');
  for (const step of ['capture:after', 'commit:after']) {
    await lab.endDaemon('SIGKILL');
    await lab.startDaemon({ STASIS_FAILPOINT: `save/${step}=kill` });
    await lab.daemonEnded();
    await lab.startDaemon();
    const cut = (await saves()).find(({ error }) => error?.code === 'interrupted');
    assert.ok(cut !== undefined);
    await until(async () => ((await isDone(cut.image)) ? true : undefined));
  }
  // The next one is due, so all before it is decided.
  const done = (await saves()).filter(({ state }) => state === 'done').map(({ image }) => image ?? '');
  assert.equal(new Set(done).size, done.length);
  assert.deepEqual(
    done.filter((name) => !/T\d{6}$/.test(name)),
    [],
    'no due time has a second image',
  );
  assert.ok((await names()).includes(first));
});

test('what the rules do not keep is gone after each save, and what stays restores', async () => {
  const [first = ''] = await names();
  await pause();
  const outcomes = await until(async () => lab.client.prune(GUEST).catch(ifBusy));
  assert.ok(Array.isArray(outcomes));
  const plan = await json<RetentionPlan>('retention', GUEST, '--dry-run');
  assert.deepEqual(
    plan.images.map(({ keep }) => keep),
    plan.images.map(() => true),
    'nothing is left to remove',
  );
  const left = await names();
  assert.equal(left.length, 3, 'the protected one and the last two');
  assert.equal(left[0], first);
  await checkHousekeeping(lab, GUEST);
  await checkImages(lab, GUEST, new Map(left.map((name) => [name, content])));
});

test('a quota that can not be held refuses the save with numbers', async () => {
  const rules = await json<Retention>('retention', GUEST, '--quota-images', '3', '--quota', '1TiB');
  assert.deepEqual([rules.keepLast, rules.quotaImages, rules.quotaBytes], [2, 3, 1024 ** 4]);
  await lab.client.changeSchedule(GUEST, 'often', { paused: false });
  const failed = await until(async () => {
    const [schedule] = (await lab.client.getGuest(GUEST)).schedules;
    return schedule?.lastRun?.state === 'failed' ? schedule.lastRun : undefined;
  });
  assert.match(failed.message, /3 images have to stay, the quota is 3/);
  assert.equal((await names()).length, 3);
  await pause();
});

test('a stopped guest is skipped, and leaves only with what is not protected', async () => {
  await lab.client.createSaveImage(GUEST);
  const rules = await json<Retention>('retention', GUEST, '--quota-images', '0', '--quota', 'none');
  assert.deepEqual([rules.quotaImages, rules.quotaBytes], [null, null]);
  await lab.client.changeSchedule(GUEST, 'often', { paused: false });
  await until(async () => {
    const [schedule] = (await lab.client.getGuest(GUEST)).schedules;
    return schedule?.lastRun?.message === 'the guest does not run' ? schedule : undefined;
  });
  await pause();
  await refuses('image-protected', () => lab.client.undefineGuest(GUEST, { deleteImages: true }));
  await lab.client.unprotectSaveImage(GUEST, (await names())[0]);

  await lab.client.protectSaveImage(GUEST);
  assert.equal((await lab.client.start(GUEST)).state, 'running');
  assert.ok((await names()).includes('default'), 'a start does not use up a protected default image');
  await refuses('image-protected', () => lab.client.createSaveImage(GUEST));
  await lab.client.stop(GUEST);
  await refuses('image-protected', () => lab.client.start(GUEST));
  await lab.client.unprotectSaveImage(GUEST);

  await lab.client.undefineGuest(GUEST, { deleteImages: true });
  assert.deepEqual(await json('schedule'), []);
});
