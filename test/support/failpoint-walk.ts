/**
 * Every step of every long operation, with the daemon killed at it, with the guest's QEMU killed at it, and with the
 * step failing. After each, a new daemon is started and the rules are checked by content.
 *
 * `STASIS_FAULTS=all` walks both sides of each step; the tests walk the side before, since after one step is before
 * the next.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Operation, SaveOptions } from '../../src/client/index.ts';
import { GROUNDS, type GroundKind } from './grounds.ts';
import { Lab, type LabGuest } from './lab.ts';
import { checkHousekeeping, checkImages, changeContent, contentOf, type Content } from './rules.ts';

const GUEST = 'web1';
const AREA_MIB = 2;
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
  /** the steps that no other scenario walks already; all of them when absent */
  readonly steps?: readonly string[];
  /** the image that the operation may end */
  readonly loses?: string;
}

/** One guest with one image, `base`, to which it returns before each case. */
class Bench {
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
    await this.image('base');
  }

  /** Back to a guest that runs on `base`, and no other image. */
  async reset(): Promise<void> {
    if (!(await this.lab.client.listSaveImages(GUEST)).some(({ name }) => name === 'base')) {
      const { state } = await this.lab.client.getGuest(GUEST);
      if (state !== 'running') await this.refill();
      return this.plantBase();
    }
    for (const { name } of await this.lab.client.listSaveImages(GUEST)) {
      if (name !== 'base') await this.lab.client.deleteSaveImage(GUEST, name);
    }
    for (const name of this.expected.keys()) if (name !== 'base') this.expected.delete(name);
    await this.lab.client.restoreSaveImage(GUEST, 'base');
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
    prepare: async (bench) => {
      await bench.image('target');
      await bench.change();
    },
    run: ({ lab }) => lab.client.restoreSaveImage(GUEST, 'target'),
    actions: ['kill', 'guest', 'error'],
  },
  {
    name: 'restore, lazily',
    procedure: 'restore',
    prepare: async (bench) => {
      await bench.image('target');
      await bench.change();
    },
    run: ({ lab }) => lab.client.restoreSaveImage(GUEST, 'target', { method: 'lazy' }),
    actions: ['kill', 'guest'],
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
    loses: 'base',
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

/** Declares the tests of a scenario, on disks of a kind. @param guest the one that is saved, when it isn't the usual one */
export function walkFailpoints(
  scenario: Scenario,
  kind: GroundKind = GROUNDS[0],
  guest: LabGuest = {},
): void {
  describe(`${scenario.name}, ${kind.name}`, { skip: kind.skip }, () => {
    let bench: Bench;
    let steps: readonly string[];

    before(async () => {
      bench = await Bench.open(kind, guest);
      await scenario.prepare(bench);
      await scenario.run(bench);
      const names = new Set((await lastOf(bench.lab, scenario)).steps.map((step) => step.name));
      steps = [...names].filter((name) => scenario.steps?.includes(name) ?? true);
      await checkImages(bench.lab, GUEST, bench.expected);
    });
    after(() => bench.lab[Symbol.asyncDispose]());

    for (const action of scenario.actions) {
      test(`${action} at every step`, { timeout: 1_200_000 }, async (context) => {
        const points = steps.flatMap((step) =>
          process.env['STASIS_FAULTS'] === 'all' ? [`${step}:before`, `${step}:after`] : [`${step}:before`],
        );
        for (const point of [...points, ...(scenario.inPause ?? [])]) {
          await context.test(point, () =>
            walk(bench, scenario, `${scenario.procedure}/${point}=${action}`, action),
          );
        }
      });
    }
  });
}

/** Declares a test of single failpoints, with one guest for all: where it takes long until one runs. @param points each as `load:before` */
export function walkSome(
  name: string,
  points: readonly (readonly [scenario: string, point: string, action: Action])[],
  kind: GroundKind,
  guest: LabGuest,
): void {
  describe(name, () => {
    let bench: Bench;
    before(async () => {
      bench = await Bench.open(kind, guest);
    });
    after(() => bench.lab[Symbol.asyncDispose]());

    for (const [scenarioName, point, action] of points) {
      const scenario = SCENARIOS.find((candidate) => candidate.name === scenarioName);
      assert.ok(scenario, scenarioName);
      test(`${scenarioName}: ${action} at ${point}`, () =>
        walk(bench, scenario, `${scenario.procedure}/${point}=${action}`, action));
    }
  });
}

async function walk(bench: Bench, scenario: Scenario, failpoint: string, action: Action): Promise<void> {
  const { lab } = bench;
  await bench.reset();
  await scenario.prepare(bench);
  await lab.failAt(failpoint);
  const outcome = scenario.run(bench).then(
    () => 'done',
    () => 'failed',
  );
  if (action === 'kill') {
    await lab.daemonEnded();
  } else {
    if (action === 'error') assert.equal(await outcome, 'failed', 'the failpoint was reached');
    await outcome;
    await lab.endDaemon('SIGTERM');
  }
  await lab.failAt();
  await lab.startDaemon();
  await outcome;
  await checkHousekeeping(lab, GUEST);

  const { state } = await lab.client.getGuest(GUEST);
  if (state === 'running') await contentOf(lab, GUEST);
  const images = await lab.client.listSaveImages(GUEST);
  const expected = scenario.loses === 'base' || images.some(({ name }) => name === 'base');
  assert.ok(expected, 'what was not touched is there');
  await checkImages(lab, GUEST, bench.expected);
  await checkHousekeeping(lab, GUEST);
}

async function lastOf(lab: Lab, scenario: Scenario): Promise<Operation> {
  const operations = await lab.client.listOperations();
  const newest = operations[0];
  assert.ok(newest, `${scenario.name} is an operation`);
  return newest;
}
