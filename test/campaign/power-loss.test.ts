/**
 * The power is cut at random moments of a history of saves, restores, starts and deletes. After each cut the host comes up
 * twice: once with its catalog, once with the catalog lost and made again from the records. What was acknowledged before the cut
 * is there, and whatever is listed as ready restores to exactly what was saved.
 *
 * `STASIS_SEED=42 STASIS_CUTS=60 node --test test/campaign/power-loss.test.ts`; the tests run a few cuts.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Lab } from '../support/lab.ts';
import { PowerLab, WHY_NO_POWER_CUTS } from '../support/power.ts';
import { Random } from '../support/random.ts';
import { loseCatalog, rebuild } from '../support/recovery.ts';
import { changeContent, contentOf, type Content } from '../support/rules.ts';

const GUEST = 'web1';
const SEED = Number(process.env['STASIS_SEED'] ?? Date.now() % 1_000_000);
const CUTS = Number(process.env['STASIS_CUTS'] ?? 2);
/** So many in one history: then it begins anew. */
const CUTS_AT_ONCE = 6;

interface Cut {
  readonly disk: string;
  /** names of images that were acknowledged before it, and of which nothing was asked until after it */
  readonly acknowledged: readonly string[];
  /** of them, those that the records told of */
  readonly recorded: readonly string[];
}

test(`${CUTS} power cuts (STASIS_SEED=${SEED})`, { skip: WHY_NO_POWER_CUTS }, async (context) => {
  const random = new Random(SEED);
  for (let left = CUTS; left > 0; left -= CUTS_AT_ONCE) {
    await using power = await PowerLab.create();
    const home = await mkdtemp(join(power.mountPoint, 'stasis-'));
    const history = new History(random);
    const cuts = await history.run(power, home, Math.min(left, CUTS_AT_ONCE));
    for (const cut of cuts) {
      await comeUp(context, power, home, history, cut, { isCatalogLost: false });
      await comeUp(context, power, home, history, cut, { isCatalogLost: true });
    }
  }
});

test('what a TPM has stored is there after a power cut', { skip: WHY_NO_POWER_CUTS }, async () => {
  await using power = await PowerLab.create();
  const home = await mkdtemp(join(power.mountPoint, 'stasis-'));
  let disk: string;
  {
    await using lab = await open(home);
    await using witness = await lab.running(GUEST, {
      disks: 1,
      extra: { tpm: true, policy: { onBoot: 'none' } },
    });
    for (let stored = 1; stored <= 3; stored += 1)
      assert.equal((await witness.changeTpm(stored)).stored, stored);
    disk = await power.cut();
  }
  await power.powerOn(disk);
  await using lab = await open(home);
  await lab.client.start(GUEST);
  await using witness = await lab.witness(GUEST);
  assert.equal((await witness.tpm()).stored, 3);
});

/** What is done to one guest, and what was known of it when. */
class History {
  /** what was saved under a name; under `default` again and again */
  readonly contents = new Map<string, Content[]>();
  readonly #random: Random;
  #acknowledged: readonly string[] = [];
  #recorded: readonly string[] = [];
  #made = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  async run(power: PowerLab, home: string, count: number): Promise<Cut[]> {
    await using lab = await open(home);
    {
      const extra = { policy: { onBoot: 'none' } };
      await using witness = await lab.running(GUEST, { system: 'bare', disks: 1, extra });
      await witness.fill(SEED, 2);
    }
    await this.#save(lab);
    const cuts: Cut[] = [];
    while (cuts.length < count) {
      const [cut] = await Promise.all([this.#cutLater(power), this.#step(lab)]);
      cuts.push(cut);
    }
    return cuts;
  }

  /** At some moment of what is being done. */
  async #cutLater(power: PowerLab): Promise<Cut> {
    await delay(this.#random.between(0, 400));
    const [acknowledged, recorded] = [this.#acknowledged, this.#recorded];
    const disk = await power.cut();
    // What goes away meanwhile may be there or not.
    const stays = (name: string) => this.#acknowledged.includes(name);
    return { disk, acknowledged: acknowledged.filter(stays), recorded: recorded.filter(stays) };
  }

  async #step(lab: Lab): Promise<void> {
    const some = this.#acknowledged;
    const kind = this.#random.of(['save', 'save', 'restore', 'suspend', 'delete'] as const);
    if (kind === 'restore') await lab.client.restoreSaveImage(GUEST, this.#random.of(some));
    else if (kind === 'suspend') await this.#suspend(lab);
    else if (kind === 'delete' && some.length > 2) await this.#delete(lab, this.#random.of(some));
    else await this.#save(lab);
    if (this.#random.chance(0.5)) await this.#settle(lab);
  }

  async #save(lab: Lab): Promise<void> {
    this.#made += 1;
    const name = `image-${this.#made}`;
    this.#keep(name, await changeContent(lab, GUEST, this.#made));
    await lab.client.createSaveImage(GUEST, { name, live: true });
    this.#acknowledged = [...this.#acknowledged, name];
  }

  /** The image is the guest's own again when it goes on. */
  async #suspend(lab: Lab): Promise<void> {
    this.#made += 1;
    this.#keep('default', await changeContent(lab, GUEST, this.#made));
    await lab.client.createSaveImage(GUEST);
    this.#acknowledged = [...this.#acknowledged, 'default'];
    await this.#settle(lab);
    this.#forget('default');
    await lab.client.start(GUEST);
  }

  async #delete(lab: Lab, name: string): Promise<void> {
    this.#forget(name);
    await lab.client.deleteSaveImage(GUEST, name);
  }

  async #settle(lab: Lab): Promise<void> {
    const settled = this.#acknowledged;
    await lab.recordsWritten();
    this.#recorded = settled.filter((name) => this.#acknowledged.includes(name));
  }

  #keep(name: string, content: Content): void {
    this.contents.set(name, [...(this.contents.get(name) ?? []), content]);
  }

  #forget(name: string): void {
    this.#acknowledged = this.#acknowledged.filter((other) => other !== name);
    this.#recorded = this.#recorded.filter((other) => other !== name);
  }
}

/** Each daemon is that of another boot. */
async function open(
  home: string,
  before: (lab: Lab) => Promise<void> = () => Promise.resolve(),
): Promise<Lab> {
  const bootIdFile = join(home, 'boot_id');
  await writeFile(bootIdFile, `${randomUUID()}\n`);
  return Lab.open(home, { STASIS_BOOT_ID_FILE: bootIdFile }, undefined, before);
}

async function comeUp(
  context: TestContext,
  power: PowerLab,
  home: string,
  { contents }: History,
  { disk, acknowledged, recorded }: Cut,
  { isCatalogLost }: { readonly isCatalogLost: boolean },
): Promise<void> {
  const how = isCatalogLost ? 'the catalog is lost' : 'with its catalog';
  await context.test(`${disk.split('-').at(-1)} ms, ${how}`, async () => {
    await power.powerOn(disk);
    await using lab = await open(home, async (asleep) => {
      if (!isCatalogLost) return;
      await loseCatalog(asleep);
      await rebuild(asleep);
    });
    for (const { id, state } of await lab.client.listOperations())
      if (state === 'running') await lab.client.followOperation(id); // it collects what the cut left
    const images = await lab.client.listSaveImages(GUEST);
    for (const name of isCatalogLost ? recorded : acknowledged)
      assert.equal(images.find((image) => image.name === name)?.state, 'ready', `${name} was promised`);
    // What it wrote to is there: of records that are older than that nothing is promised. A restore that was committed goes on by itself.
    const runs = ['running', 'paused'].includes((await lab.client.getGuest(GUEST)).state);
    if (!isCatalogLost && !runs) await lab.client.start(GUEST, { fresh: true });
    for (const { name } of images.filter(({ state }) => state === 'ready')) {
      await lab.client.restoreSaveImage(GUEST, name);
      const content = await contentOf(lab, GUEST);
      assert.ok(
        contents
          .get(name)
          ?.some(({ memory, disk: read }) => memory === content.memory && read === content.disk),
        `${name} restores to what was saved`,
      );
    }
  });
}
