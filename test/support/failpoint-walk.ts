/**
 * Every step of every long operation, with the daemon killed at it, with the guest's QEMU killed at it, and with the
 * step failing. After each the rules are checked by content. All is done to one guest, which is put right in between as cheaply as
 * can be: that is what makes it possible to walk every step also where all is slow.
 *
 * `STASIS_FAULTS=steps` walks each step of each scenario, `STASIS_FAULTS=all` both sides of it. The tests walk the side before,
 * since after one step is before the next, and of scenarios that share their steps with another only those that differ.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Operation, SaveOptions } from '../../src/client/index.ts';
import { messageOf } from '../../src/errors.ts';
import { GROUNDS, type GroundKind } from './grounds.ts';
import { Lab, type LabGuest } from './lab.ts';
import { checkHousekeeping, checkImages, changeContent, contentOf, type Content } from './rules.ts';

const GUEST = 'web1';
const BASE = 'base';
/** Where instructions are emulated and processors are few a step takes many seconds. */
const WALK_TIMEOUT_MS = 3_600_000;
const LOG_CHARS = 4_000;
const AREA_MIB = 2;
const ON_BOTH_SIDES = process.env['STASIS_FAULTS'] === 'all';
const AT_EVERY_STEP = ON_BOTH_SIDES || process.env['STASIS_FAULTS'] === 'steps';
type Action = 'kill' | 'guest' | 'error';

export interface Scenario {
  readonly name: string;
  readonly procedure: string;
  /** from a guest that runs on image `base` */
  readonly prepare: (bench: Bench) => Promise<void>;
  readonly run: (bench: Bench) => Promise<unknown>;
  /** failpoints inside a pause or a step, where nothing is journaled */
  readonly inPause?: readonly string[];
  readonly actions: readonly Action[];
  /** the steps that the tests walk: those that no other scenario walks already; all of them when absent */
  readonly steps?: readonly string[];
  /** the steps that are of no interest */
  readonly skips?: readonly string[];
  /** an image that it begins with and that stays: it is made once */
  readonly keeps?: string;
  /** the image that the operation may end */
  readonly loses?: string;
  /** looks at what else it made, and removes that */
  readonly after?: (bench: Bench) => Promise<void>;
}

/** One guest with one image, `base`, with which alone each case begins. */
export class Bench implements AsyncDisposable {
  readonly lab: Lab;
  readonly expected = new Map<string, Content>();
  readonly #maxPauseMs: number | undefined;
  #seed = 100;

  private constructor(lab: Lab, { maxPauseMs }: GroundKind) {
    this.lab = lab;
    this.#maxPauseMs = maxPauseMs;
  }

  static async open(kind: GroundKind, guest: LabGuest): Promise<Bench> {
    const bench = new Bench(await Lab.on(kind), kind);
    {
      await using witness = await bench.lab.running(GUEST, { extra: { graphics: 'vnc' }, ...guest });
      await witness.fill(1, AREA_MIB);
    }
    await bench.plantBase();
    return bench;
  }

  async saveLive(name: string, options: SaveOptions = {}): Promise<void> {
    const maxPause = this.#maxPauseMs === undefined ? {} : { maxPauseMs: this.#maxPauseMs };
    await this.lab.client.createSaveImage(GUEST, { name, live: true, ...maxPause, ...options });
  }

  change(): Promise<Content> {
    this.#seed += 1;
    return changeContent(this.lab, GUEST, this.#seed);
  }

  async image(name: string): Promise<void> {
    const content = await this.change();
    await this.saveLive(name);
    this.expected.set(name, content);
  }

  /** A guest that crashed with no image to go back to starts anew, and needs its known memory again. */
  async refill(): Promise<void> {
    await this.lab.client.start(GUEST);
    await using witness = await this.lab.witness(GUEST);
    await witness.fill(1, AREA_MIB);
  }

  async plantBase(): Promise<void> {
    await this.image(BASE);
  }

  /** A guest that runs, with `base` and no other image, but for what a scenario keeps. */
  async reset(keeps?: string): Promise<void> {
    const isKept = (name: string) => name === BASE || name === keeps;
    const images = (await this.lab.client.listSaveImages(GUEST)).map(({ name }) => name);
    for (const name of images) if (!isKept(name)) await this.lab.client.deleteSaveImage(GUEST, name);
    for (const name of this.expected.keys())
      if (!isKept(name) || !images.includes(name)) this.expected.delete(name);
    const { state } = await this.lab.client.getGuest(GUEST);
    if (!images.includes(BASE)) {
      if (state !== 'running') await this.refill();
      await this.plantBase();
    } else if (state !== 'running') await this.returnToBase();
  }

  /** `base` restores exactly, whatever was done since it was taken. */
  async returnToBase(): Promise<void> {
    await this.lab.client.restoreSaveImage(GUEST, BASE);
    assert.deepEqual(
      await contentOf(this.lab, GUEST),
      this.expected.get(BASE),
      `image ${BASE} restores exactly`,
    );
  }

  /** So do all others. */
  async checkOthers(): Promise<void> {
    const others = new Map([...this.expected].filter(([name]) => name !== BASE));
    await checkImages(this.lab, GUEST, others);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.lab[Symbol.asyncDispose]();
  }
}

/** The bench of many cases. After one that failed the next gets a new one: what is wrong with it is told once. */
class SharedBench implements AsyncDisposable {
  readonly #kind: GroundKind;
  readonly #guest: LabGuest;
  #bench: Bench | undefined;

  constructor(kind: GroundKind, guest: LabGuest) {
    this.#kind = kind;
    this.#guest = guest;
  }

  async use<T>(work: (bench: Bench) => Promise<T>): Promise<T> {
    const bench = (this.#bench ??= await Bench.open(this.#kind, this.#guest));
    try {
      return await work(bench);
    } catch (error) {
      const log = await bench.lab.log();
      await this[Symbol.asyncDispose]();
      throw new Error(`${messageOf(error)}\nThe daemon's last words:\n${log.slice(-LOG_CHARS)}`, {
        cause: error,
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const bench = this.#bench;
    this.#bench = undefined;
    await bench?.[Symbol.asyncDispose]();
  }
}

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'live save',
    procedure: 'save',
    prepare: async (bench) => void bench.expected.set('new', await bench.change()),
    run: (bench) => bench.saveLive('new'),
    inPause: ['pause:before-switch', 'pause:after-switch'],
    actions: ['kill', 'guest', 'error'],
  },
  {
    name: 'live save in the background',
    procedure: 'save',
    prepare: async (bench) => {
      // Memory that is mapped from an image can't be tracked.
      await bench.lab.client.restoreSaveImage(GUEST, 'base', { method: 'eager' });
      bench.expected.set('new', await bench.change());
    },
    run: (bench) => bench.saveLive('new', { method: 'background' }),
    inPause: ['pause:before-switch', 'pause:after-switch'],
    actions: ['kill', 'guest', 'error'],
    steps: ['capture', 'verify'],
  },
  {
    name: 'save',
    procedure: 'save',
    prepare: async (bench) => void bench.expected.set('default', await bench.change()),
    run: ({ lab }) => lab.client.createSaveImage(GUEST),
    actions: ['kill', 'guest'],
  },
  {
    name: 'restore',
    procedure: 'restore',
    keeps: 'target',
    prepare: async (bench) => void (await bench.change()),
    run: ({ lab }) => lab.client.restoreSaveImage(GUEST, 'target'),
    actions: ['kill', 'guest', 'error'],
  },
  {
    name: 'restore, lazily',
    procedure: 'restore',
    keeps: 'target',
    prepare: async (bench) => void (await bench.change()),
    run: ({ lab }) => lab.client.restoreSaveImage(GUEST, 'target', { method: 'lazy' }),
    actions: ['kill', 'guest'],
    steps: ['load', 'run'],
  },
  {
    name: 'start from the default image, which is consumed',
    procedure: 'restore',
    prepare: async (bench) => {
      bench.expected.set('default', await bench.change());
      await bench.lab.client.createSaveImage(GUEST);
    },
    run: ({ lab }) => lab.client.start(GUEST),
    actions: ['kill', 'guest'],
    steps: ['commit', 'run', 'delete-image'],
  },
  {
    name: 'delete in the middle of the tree, running',
    procedure: 'delete',
    prepare: async (bench) => {
      await bench.image('first');
      await bench.image('middle');
      await bench.image('last');
    },
    run: ({ lab }) => lab.client.deleteSaveImage(GUEST, 'middle'),
    actions: ['kill', 'guest'],
  },
  {
    name: 'delete in the middle of the tree, stopped',
    procedure: 'delete',
    prepare: async (bench) => {
      await bench.image('first');
      await bench.image('middle');
      await bench.image('last');
      await bench.lab.client.stop(GUEST);
    },
    run: ({ lab }) => lab.client.deleteSaveImage(GUEST, 'middle'),
    actions: ['kill'],
  },
  {
    name: 'delete of the only image, whose layer is folded under the running guest',
    procedure: 'delete',
    loses: BASE,
    prepare: async (bench) => void (await bench.change()),
    run: ({ lab }) => lab.client.deleteSaveImage(GUEST, 'base'),
    inPause: ['pause:before-pivot', 'pause:after-pivot'],
    actions: ['kill', 'guest'],
  },
  {
    name: 'compact, running',
    procedure: 'compact',
    prepare: async (bench) => {
      await bench.image('first');
      await bench.change();
    },
    run: ({ lab }) => lab.client.compactDisks(GUEST),
    actions: ['kill', 'guest'],
  },
  {
    name: 'compact, stopped',
    procedure: 'compact',
    prepare: async (bench) => {
      await bench.image('first');
      await bench.lab.client.stop(GUEST);
    },
    run: ({ lab }) => lab.client.compactDisks(GUEST),
    actions: ['kill'],
    steps: ['copy-up'],
  },
];

/** What there is only where disks are copied. */
const ON_COPIES: readonly Scenario[] = [
  {
    name: 'save of a guest on a copy, which becomes the file of the user',
    procedure: 'save',
    prepare: async (bench) => {
      await bench.returnToBase();
      bench.expected.set('default', await bench.change());
    },
    run: ({ lab }) => lab.client.createSaveImage(GUEST),
    inPause: ['replace:moved'],
    actions: ['kill', 'guest', 'error'],
  },
];

/**
 * Declares the tests of scenarios, on disks of a kind, with one guest for all.
 * @param guest the one that is saved, when it isn't the usual one
 */
export function walkFailpoints(
  scenarios: readonly Scenario[],
  kind: GroundKind = GROUNDS[0],
  guest: LabGuest = {},
): void {
  describe(kind.name, { skip: kind.skip }, () => {
    const shared = new SharedBench(kind, guest);
    after(() => shared[Symbol.asyncDispose]());
    for (const scenario of scenarios) describe(scenario.name, () => walkScenario(scenario, shared));
  });
}

function walkScenario(scenario: Scenario, shared: SharedBench): void {
  let steps: readonly string[];
  before(async () => {
    steps = await shared.use((bench) => stepsOf(bench, scenario));
  });
  for (const action of scenario.actions) {
    test(`${action} at every step`, { timeout: WALK_TIMEOUT_MS }, async (context) => {
      const points = steps.flatMap((step) =>
        ON_BOTH_SIDES ? [`${step}:before`, `${step}:after`] : [`${step}:before`],
      );
      for (const point of [...points, ...(scenario.inPause ?? [])]) {
        await context.test(point, () =>
          shared.use((bench) => walk(bench, scenario, `${scenario.procedure}/${point}=${action}`, action)),
        );
      }
      await context.test(`${BASE} after all`, () =>
        shared.use(async (bench) => {
          await bench.reset();
          await bench.returnToBase();
        }),
      );
    });
  }
}

/** Runs it once without a fault. @returns the steps that it has, and that are to be walked */
async function stepsOf(bench: Bench, scenario: Scenario): Promise<string[]> {
  await prepare(bench, scenario);
  await scenario.run(bench);
  const names = new Set((await lastOf(bench.lab, scenario)).steps.map((step) => step.name));
  await check(bench, scenario);
  return [...names].filter(
    (name) =>
      (AT_EVERY_STEP || (scenario.steps?.includes(name) ?? true)) && scenario.skips?.includes(name) !== true,
  );
}

async function prepare(bench: Bench, { keeps, prepare: asItWants }: Scenario): Promise<void> {
  await bench.reset(keeps);
  if (keeps !== undefined && !bench.expected.has(keeps)) await bench.image(keeps);
  await asItWants(bench);
}

/** Declares a test of single failpoints, with one guest for all: where it takes long until one runs. @param points each as `load:before` */
export function walkSome(
  name: string,
  points: readonly (readonly [scenario: string, point: string, action: Action])[],
  kind: GroundKind,
  guest: LabGuest,
): void {
  describe(name, () => {
    const shared = new SharedBench(kind, guest);
    after(() => shared[Symbol.asyncDispose]());

    for (const [scenarioName, point, action] of points) {
      const scenario = scenarioNamed(scenarioName);
      test(`${scenarioName}: ${action} at ${point}`, () =>
        shared.use((bench) => walk(bench, scenario, `${scenario.procedure}/${point}=${action}`, action)));
    }
  });
}

/** One of the scenarios, with what is different about it. */
export function scenarioNamed(name: string, changes: Partial<Scenario> = {}): Scenario {
  const scenario = [...SCENARIOS, ...ON_COPIES].find((candidate) => candidate.name === name);
  assert.ok(scenario, name);
  return { ...scenario, ...changes };
}

async function walk(bench: Bench, scenario: Scenario, failpoint: string, action: Action): Promise<void> {
  const { lab } = bench;
  await prepare(bench, scenario);
  await lab.failAt(failpoint);
  const outcome = scenario.run(bench).then(
    () => 'done',
    () => 'failed',
  );
  if (action === 'kill') {
    await lab.daemonEnded();
    await lab.failAt();
    await lab.startDaemon();
    await outcome;
  } else {
    if (action === 'error') assert.equal(await outcome, 'failed', 'the failpoint was reached');
    await outcome;
    await lab.failAt();
    await settle(lab, scenario);
    await knownAsItIs(lab);
  }
  await check(bench, scenario);
}

/**
 * An operation that failed before its commit is undone by then, and nobody has tidied up behind it. What failed after it is
 * finished by the next daemon.
 */
async function settle(lab: Lab, scenario: Scenario): Promise<void> {
  const { state, steps } = await lastOf(lab, scenario);
  if (state === 'done' || !steps.some(({ name }) => name === 'commit')) return;
  await lab.endDaemon('SIGTERM');
  await lab.startDaemon();
}

/** That a guest's process has been killed is noticed a moment later, which no answer waits for. */
async function knownAsItIs(lab: Lab): Promise<void> {
  while ((await lab.client.getGuest(GUEST)).state === 'running' && (await lab.qemuProcesses()).length === 0)
    await delay(20);
}

async function check(bench: Bench, scenario: Scenario): Promise<void> {
  const { lab } = bench;
  await scenario.after?.(bench);
  await checkHousekeeping(lab, GUEST);
  const { state } = await lab.client.getGuest(GUEST);
  if (state === 'running') await contentOf(lab, GUEST);
  const images = await lab.client.listSaveImages(GUEST);
  for (const name of [BASE, scenario.keeps].filter((each) => each !== scenario.loses))
    assert.ok(name === undefined || images.some((image) => image.name === name), `${name} is there`);
  if (images.every(({ name }) => name === BASE)) return;
  await bench.checkOthers();
  await checkHousekeeping(lab, GUEST);
}

async function lastOf(lab: Lab, { name, procedure }: Scenario): Promise<Operation> {
  const newest = (await lab.client.listOperations()).find(({ kind }) => kind !== 'collect');
  assert.ok(newest, `${name} is an operation (${procedure})`);
  return newest;
}
