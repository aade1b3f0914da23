/**
 * One random history of a guest: what users do, with faults in the midst of it. After each step the rules of the design are
 * checked by content. All that is chosen follows from the seed; in which moment a fault strikes is also the machine's.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, StasisError } from '../../../src/errors.ts';
import type { GroundKind } from '../grounds.ts';
import { Random } from '../random.ts';
import { changeContent, checkHousekeeping, contentOf, REGION, type Content } from '../rules.ts';
import {
  actionsIn,
  checkClone,
  CLONE,
  DEFAULT,
  GUEST,
  letRun,
  mustBeOneOf,
  removeClone,
  UnreadableDisk,
  type Action,
} from './actions.ts';
import { FAULTS, NO_FAULT, type Fault } from './faults.ts';
import { Ledger } from './ledger.ts';
import { World } from './world.ts';

/** So long an operation may take on a disk that is slow. */
const PATIENCE_MS = 120_000;
const CALM = 0.25;
const AREA_MIB = 1;
/** After a connection to it has broken, or was refused. */
const ENDS_WITHIN_MS = 5_000;

export interface HistoryOptions {
  readonly seed: number;
  readonly steps: number;
  /** of the guest's disks; they are in the home without one */
  readonly ground: GroundKind | undefined;
  readonly onStep: (step: Step) => void;
  /** ends it before its next step */
  readonly signal: AbortSignal;
}

export interface Step {
  readonly action: string;
  readonly fault: string;
  readonly outcome: string;
  /** of the guest, afterwards */
  readonly state: string;
}

/** In one line. */
export function told({ action, fault, outcome, state }: Step): string {
  return `${action}, with ${fault}: ${outcome}, ${state}`;
}

/** What happened that must not. */
export class BrokenRule extends Error {
  override readonly name = 'BrokenRule';
  readonly daemonLog: string;

  constructor(history: readonly Step[], what: string, daemonLog: string, cause: unknown) {
    const steps = history.map((step) => `  after ${told(step)}`);
    super([`${what}: ${messageOf(cause)}`, ...steps].join('\n'), { cause });
    if (cause instanceof Error && cause.stack !== undefined) this.stack = `${this.message}\n${cause.stack}`;
    this.daemonLog = daemonLog;
  }
}

/** Lets it happen. @returns the failpoints that struck, each time @throws BrokenRule */
export async function live(options: HistoryOptions): Promise<readonly string[]> {
  const random = new Random(options.seed);
  const { ground, seed } = options;
  await using world = await World.open({ ground, hasOwnClock: seed % 3 === 2 }, random);
  const history = new History(world, random, options);
  const steps: Step[] = [];
  try {
    await history.begin();
    while (steps.length < options.steps) {
      options.signal.throwIfAborted();
      const step = await history.next();
      steps.push(step);
      options.onStep(step);
    }
    await history.checkImages();
    await history.checkBack();
    const log = await world.lab.log();
    const defects = log.split('\n').filter((line) => line.includes('"msg":"internal error"'));
    assert.deepEqual(defects, [], 'nothing went wrong that has no name');
    return [...log.matchAll(/"failpoint":"([^"]+)"/g)].map(([, name = '']) => name);
  } catch (error) {
    throw new BrokenRule(steps, history.what, await world.lab.log(), error);
  }
}

class History {
  readonly #world: World;
  readonly #random: Random;
  readonly #faults: readonly Fault[];
  readonly #system: 'linux' | 'bare';
  readonly #hasTpm: boolean;
  readonly #ledger = new Ledger();
  #content: Content | undefined;
  #made = 0;
  /** something that it needs may be gone */
  #mayEnd = false;
  #what = 'its beginning';

  constructor(world: World, random: Random, { seed }: HistoryOptions) {
    this.#world = world;
    this.#random = random;
    this.#faults = FAULTS.filter(({ isPossible }) => isPossible?.(world) ?? true);
    this.#system = seed % 16 === 0 ? 'linux' : 'bare';
    this.#hasTpm = seed % 4 === 1;
  }

  /** What went on last. */
  get what(): string {
    return this.#what;
  }

  async begin(): Promise<void> {
    await this.#lab.define(GUEST, {
      system: this.#system,
      extra: { policy: { onBoot: 'restore', timeLimitSeconds: 15 }, ...(this.#hasTpm ? { tpm: true } : {}) },
    });
    await this.#lab.client.start(GUEST);
  }

  /** Lets something happen, and checks the rules. */
  async next(): Promise<Step> {
    const before = await this.#look();
    const action = this.#random.of(
      actionsIn({
        ...{ lab: this.#lab, random: this.#random, ledger: this.#ledger, number: this.#made },
        ...{ ...before, content: this.#content },
      }),
    );
    const fault = this.#random.chance(CALM) ? NO_FAULT : this.#random.of(this.#faults);
    this.#what = `${described(action)}, with ${fault.name}`;
    const outcome = await this.#let(action, fault);
    this.#mayEnd = !fault.sparesGuest || (this.#hasTpm && this.#mayEnd);
    await this.#settle(action, fault, outcome);
    const after = await this.#check(action, fault, outcome, before.state);
    return { action: described(action), fault: fault.name, outcome, state: after };
  }

  async checkImages(): Promise<void> {
    this.#what = 'restoring all that is left';
    for (const { name } of await this.#lab.client.listSaveImages(GUEST)) {
      await this.#lab.client.restoreSaveImage(GUEST, name);
      await letRun(this.#lab, GUEST);
      mustBeOneOf(await contentOf(this.#lab, GUEST), this.#ledger.held(name), `image ${name}`);
    }
  }

  /** Without images and without its guest, the disk is where the user put it, and as the guest left it. */
  async checkBack(): Promise<void> {
    this.#what = 'undefining it';
    const { client } = this.#lab;
    const { state } = await client.getGuest(GUEST);
    if (state !== 'running' && state !== 'paused') await client.start(GUEST);
    await letRun(this.#lab, GUEST);
    await this.#ensureMemory();
    const { disk } = await changeContent(this.#lab, GUEST, 1_000_000);
    const brought = await this.#lab.disksOf(GUEST);
    await client.stop(GUEST);
    await client.undefineGuest(GUEST, { deleteImages: true });
    assert.deepEqual(await this.#lab.files(), []);
    assert.deepEqual(await this.#lab.layersOnGround(), []);
    await this.#lab.defineOn('again', brought, { system: this.#system });
    await client.start('again');
    await using witness = await this.#lab.witness('again');
    assert.equal((await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib)).checksum, disk);
  }

  get #lab() {
    return this.#world.lab;
  }

  /** What there is to begin from. A guest that runs gets new content, so that each image can be told from all others. */
  async #look() {
    const { state } = await this.#lab.client.getGuest(GUEST);
    const images = (await this.#lab.client.listSaveImages(GUEST)).map(({ name }) => name);
    this.#made += 1;
    if (state === 'running') {
      await this.#ensureMemory();
      this.#content = await changeContent(this.#lab, GUEST, this.#made);
    } else if (state !== 'paused') this.#content = undefined;
    return { state, images };
  }

  /** A guest that was started anew has no known memory yet. */
  async #ensureMemory(): Promise<void> {
    await using witness = await this.#lab.witness(GUEST);
    if ((await witness.status()).areaMiB === 0) await witness.fill(this.#made, AREA_MIB);
  }

  async #let(action: Action, fault: Fault): Promise<string> {
    const { image, makes, ends } = action;
    if (image !== undefined && makes !== undefined) this.#ledger.mayBecome(image, makes);
    if (image !== undefined && (ends !== undefined || makes !== undefined)) this.#ledger.mayGo(image);
    const deed = () => {
      const outcome = action.act().then(() => 'done', outcomeOf);
      outcome.catch(() => undefined); // it is waited for when the fault is over
      return outcome;
    };
    const tooLong = delay(PATIENCE_MS, undefined, { ref: false }).then(() =>
      assert.fail(`nothing came of it within ${PATIENCE_MS / 1000} s, with ${fault.name}`),
    );
    return Promise.race([fault.strike(this.#world, deed, this.#random), tooLong]);
  }

  /** What could not be undone on a full disk is, before anything else is done to the guest. */
  async #settle(action: Action, fault: Fault, outcome: string): Promise<void> {
    await this.#endNoticed();
    for (const { id, state } of await this.#lab.client.listOperations())
      if (state === 'running') await this.#lab.client.followOperation(id);
    if (outcome !== 'done') await this.#letSettle();
    if (action.kind === 'restore --as') await this.#checkClone(action, fault, outcome);
  }

  async #checkClone({ image = '' }: Action, fault: Fault, outcome: string): Promise<void> {
    const clone = (await this.#lab.client.listGuests()).find(({ name }) => name === CLONE);
    if (outcome === 'done' && fault.sparesGuest)
      assert.ok(
        clone?.state === 'running' || clone?.state === 'paused',
        'the clone is there, as acknowledged',
      );
    if (clone === undefined) return;
    // What the host's boot has started anew holds nothing that is known.
    if (fault.boots === true) await removeClone(this.#lab);
    else await checkClone(this.#lab, clone, this.#ledger.held(image));
  }

  /** The daemon may be at it by itself. */
  async #letSettle(): Promise<void> {
    for (;;) {
      try {
        return await this.#lab.client.setPolicy(GUEST, { order: this.#made }).then(() => undefined);
      } catch (error) {
        const operation =
          error instanceof StasisError && error.code === 'busy' && error.details?.['operation'];
        if (typeof operation !== 'string') throw error;
        await this.#lab.client.followOperation(operation);
      }
    }
  }

  /** A daemon hears of the end of a QEMU by itself. */
  async #endNoticed(): Promise<void> {
    for (;;) {
      const processes = await this.#lab.qemuProcesses();
      const guests = await this.#lab.client.listGuests();
      if (guests.filter(({ state }) => state === 'running' || state === 'paused').length <= processes.length)
        return;
      await delay(20);
    }
  }

  /** @returns the guest's state */
  async #check(action: Action, fault: Fault, outcome: string, stateBefore: string): Promise<string> {
    await checkHousekeeping(this.#lab, GUEST);
    await this.#checkPromises(action, fault, outcome);
    const { state } = await this.#lab.client.getGuest(GUEST);
    const isDone = outcome === 'done';
    // Memory that is mapped can't be captured by every method; a guest whose TPM was killed can't be saved, and may end later.
    const mayBe = [
      'done',
      'unsupported',
      ...(this.#hasTpm ? ['not-capturable', 'capture-failed', 'guest-crashed'] : []),
    ];
    if (fault === NO_FAULT) assert.ok(mayBe.includes(outcome), outcome);
    if (fault.mustBeDone?.includes(action.kind) === true) assert.equal(outcome, 'done', fault.name);
    const mustBe =
      action.leaves === 'same'
        ? this.#content
        : isDone && typeof action.leaves === 'object'
          ? action.leaves
          : undefined;
    if (fault.sparesGuest) this.#checkSpared(action, isDone, stateBefore, state);
    if (state === 'running') {
      const content = await contentOf(this.#lab, GUEST).catch((error: unknown) => this.#endedFor(error));
      if (typeof content === 'string') return content;
      if (fault.sparesGuest && mustBe !== undefined)
        assert.deepEqual(content, mustBe, 'the guest holds what it must');
    }
    if (state === 'paused' && action.leaves !== 'same')
      this.#content = isDone && fault.sparesGuest ? mustBe : undefined;
    return state;
  }

  /**
   * A guest that was not spared, or whose TPM was not, may end while it is looked at.
   * @returns its state then
   * @throws the error, when it is not for that
   */
  async #endedFor(error: unknown): Promise<string> {
    if (!this.#mayEnd) throw error;
    for (const until = Date.now() + ENDS_WITHIN_MS; Date.now() < until; await delay(20)) {
      const { state } = await this.#lab.client.getGuest(GUEST);
      if (state !== 'running') return state;
    }
    throw error;
  }

  /** A guest outlives whatever doesn't end it. */
  #checkSpared(action: Action, isDone: boolean, before: string, after: string): void {
    if (action.leaves === 'same' && !['pause', 'resume'].includes(action.kind))
      assert.equal(after, before, 'the guest is what it was');
    if (isDone && action.leaves === 'stopped') assert.equal(after, 'stopped');
  }

  /** The client asks the next daemon again: what is saved then is a guest that the host's boot has started anew. */
  async #forgetUnlessOfBefore(name: string): Promise<boolean> {
    const { client } = this.#lab;
    const { boot } = await client.hostStatus();
    const image = (await client.listSaveImages(GUEST)).find((each) => each.name === name);
    if (image === undefined || image.createdAt < boot.seenAt) return false;
    await client.deleteSaveImage(GUEST, name);
    return true;
  }

  /** Nothing acknowledged is lost, nothing else is listed. */
  async #checkPromises({ image, makes, ends }: Action, fault: Fault, outcome: string): Promise<void> {
    const mayBeOfAfter = fault.boots === true && image !== undefined && makes !== undefined;
    const isForgotten = mayBeOfAfter && (await this.#forgetUnlessOfBefore(image));
    const images = await this.#lab.client.listSaveImages(GUEST);
    const listed = images.map(({ name }) => name);
    if (outcome === 'done' && image !== undefined && makes !== undefined && !isForgotten)
      this.#ledger.became(image, makes);
    if (outcome === 'done' && image !== undefined && ends === 'surely')
      assert.ok(!listed.includes(image), `image ${image} is gone, as acknowledged`);
    if (fault.boots === true) this.#ledger.mayGo(DEFAULT); // its guest went on from it
    for (const certain of this.#ledger.certain)
      assert.ok(listed.includes(certain), `image ${certain} is there, as acknowledged`);
    for (const { name, state } of images) {
      assert.equal(state, 'ready', `image ${name}`);
      assert.ok(this.#ledger.held(name).length > 0, `image ${name} was asked for`);
    }
    this.#ledger.settle(listed);
  }
}

function described({ kind, image }: Action): string {
  return image === undefined ? kind : `${kind} ${image}`;
}

/** An error of ours is an outcome, `internal` is a defect, and whatever isn't ours is one of the test. */
function outcomeOf(error: unknown): string {
  if (error instanceof UnreadableDisk) return 'unreadable';
  if (!(error instanceof StasisError)) throw error;
  assert.notEqual(error.code, 'internal', error.message);
  return error.code;
}
