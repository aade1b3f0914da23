/**
 * A random history of one guest: changes, saves of both kinds, restores, deletes, exports, compactions, starts and stops, with the daemon or
 * its QEMU killed at random moments of them. After each event the rules are checked, and at the end every image that
 * is left is restored and compared.
 *
 * The tests run a short history of a fixed seed on two kinds of storage. A campaign: `STASIS_SEED=42 STASIS_EVENTS=500
 * STASIS_GROUND='reflinks of raw files on Btrfs' node --test test/faults/history.test.ts` (test/support/grounds.ts has the
 * kinds; all of them when none is named); a seed names the events, their moments are the machine's.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual, promisify } from 'node:util';
import { kindsNamed } from '../support/grounds.ts';
import { Lab } from '../support/lab.ts';
import { Random } from '../support/random.ts';
import { changeContent, checkHousekeeping, contentOf, REGION, type Content } from '../support/rules.ts';

const run = promisify(execFile);
const GUEST = 'web1';
const SEED = Number(process.env['STASIS_SEED'] ?? 1);
const EVENTS = Number(process.env['STASIS_EVENTS'] ?? 10);
const KINDS = kindsNamed(
  process.env['STASIS_GROUND'] ??
    (process.env['STASIS_EVENTS'] === undefined
      ? 'overlays over qcow2, reflinks beside overlays'
      : undefined),
);
const LONGEST_DELAY_MS = 500;

for (const kind of KINDS) {
  const name = `a random history of ${EVENTS} events on ${kind.name}, seed ${SEED}`;
  test(name, { skip: kind.skip, timeout: 3_600_000 }, async (context) => {
    await using lab = await Lab.on(kind);
    await (await lab.running(GUEST)).close();
    const random = new Random(SEED);
    const history = new History(lab, () => random.next());
    for (let event = 0; event < EVENTS; event += 1) context.diagnostic(`${event}: ${await history.next()}`);
    await history.checkImages();
    await history.checkBack();
  });
}

class History {
  readonly #lab: Lab;
  readonly #random: () => number;
  /** what an image of that name may hold: an interrupted save may or may not have replaced the one before */
  readonly #expected = new Map<string, Content[]>();
  #made = 0;

  constructor(lab: Lab, random: () => number) {
    this.#lab = lab;
    this.#random = random;
  }

  /** Lets something happen and checks the rules. @returns what it was */
  async next(): Promise<string> {
    const [name, action] = await this.#choose();
    const isInterrupted = this.#random() < 0.4;
    const outcome = isInterrupted ? await this.#interrupt(action) : await action().then(() => 'done');
    await checkHousekeeping(this.#lab, GUEST);
    if (outcome.endsWith('done')) await this.#checkAcknowledged(name);
    const { state } = await this.#lab.client.getGuest(GUEST);
    if (state === 'running') await contentOf(this.#lab, GUEST);
    return `${name}: ${outcome}, ${state}`;
  }

  async checkImages(): Promise<void> {
    for (const { name } of await this.#lab.client.listSaveImages(GUEST)) {
      await this.#lab.client.restoreSaveImage(GUEST, name);
      const content = await contentOf(this.#lab, GUEST);
      const possible = this.#expected.get(name) ?? [];
      assert.ok(
        possible.some((candidate) => isDeepStrictEqual(candidate, content)),
        `image ${name} restores exactly`,
      );
    }
  }

  /** Without images and without its guest, the disk is where the user put it, and as the guest left it. */
  async checkBack(): Promise<void> {
    const { client } = this.#lab;
    await this.#ensureRunning();
    const { disk } = await changeContent(this.#lab, GUEST, 1_000_000);
    const brought = await this.#lab.disksOf(GUEST);
    await client.stop(GUEST);
    await client.undefineGuest(GUEST, { deleteImages: true });
    assert.deepEqual(await this.#lab.files(), []);
    await this.#lab.defineOn('again', brought);
    await client.start('again');
    await using witness = await this.#lab.witness('again');
    assert.equal((await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib)).checksum, disk);
  }

  async #ensureRunning(): Promise<void> {
    const { state } = await this.#lab.client.getGuest(GUEST);
    if (state !== 'running') await this.#lab.client.start(GUEST);
    await this.#ensureMemory();
  }

  async #choose(): Promise<[string, () => Promise<unknown>]> {
    const { client } = this.#lab;
    const { state } = await client.getGuest(GUEST);
    const images = (await client.listSaveImages(GUEST)).map(({ name }) => name);
    const image = images[Math.floor(this.#random() * images.length)];
    const choices: [string, () => Promise<unknown>][] = [];
    if (state === 'running') {
      // What it holds is changed and known first, so that the image can be told from all others.
      this.#made += 1;
      const name = `image${this.#made}`;
      await this.#ensureMemory();
      const content = await changeContent(this.#lab, GUEST, this.#made);
      choices.push(
        [`live save ${name}`, () => this.#save(name, true, content)],
        ['save', () => this.#save('default', false, content)],
        ['stop', () => client.stop(GUEST)],
      );
    } else {
      choices.push(
        ['start', () => client.start(GUEST)],
        ['start --fresh', () => client.start(GUEST, { fresh: true })],
      );
    }
    choices.push(['compact', () => client.compactDisks(GUEST)]);
    if (image !== undefined) {
      choices.push(
        [`export ${image}`, () => this.#read(image)],
        [`restore ${image}`, () => client.restoreSaveImage(GUEST, image)],
        [`restore --delete ${image}`, () => client.restoreSaveImage(GUEST, image, { delete: true })],
        [`delete ${image}`, () => client.deleteSaveImage(GUEST, image)],
      );
    }
    return choices[Math.floor(this.#random() * choices.length)] ?? ['nothing', () => Promise.resolve()];
  }

  /** What a client was told is done is done, whatever was killed right after. */
  async #checkAcknowledged(name: string): Promise<void> {
    const images = (await this.#lab.client.listSaveImages(GUEST)).map((image) => image.name);
    const [, verb = '', image = 'default'] =
      /^(live save|save|restore --delete|delete)(?: (.+))?$/.exec(name) ?? [];
    if (verb.endsWith('save')) assert.ok(images.includes(image), `acknowledged image ${image} is there`);
    if (verb.endsWith('delete'))
      assert.ok(!images.includes(image), `image ${image} is gone, as acknowledged`);
  }

  /** A guest that was started anew has no known memory yet. */
  async #ensureMemory(): Promise<void> {
    await using witness = await this.#lab.witness(GUEST);
    if ((await witness.status()).areaMiB === 0) await witness.fill(SEED, 8);
  }

  async #save(name: string, live: boolean, content: Content): Promise<void> {
    this.#expected.set(name, [...(this.#expected.get(name) ?? []), content]);
    await this.#lab.client.createSaveImage(GUEST, { name, live });
    this.#expected.set(name, [content]);
  }

  /** Opens the first disk of an image and reads of it what a header has. */
  async #read(image: string): Promise<void> {
    using held = await this.#lab.client.exportDisk(GUEST, image, { disk: 'disk0' });
    await run('qemu-img', ['info', held.info.uri]);
  }

  /** Kills the daemon, the guest, or both, at a random moment of the action; a new daemon settles what is left. */
  async #interrupt(action: () => Promise<unknown>): Promise<string> {
    const victims = this.#random();
    const outcome = action().then(
      () => 'done',
      () => 'failed',
    );
    await delay(this.#random() * LONGEST_DELAY_MS);
    if (victims < 0.5) for (const pid of await this.#lab.qemuProcesses()) process.kill(pid, 'SIGKILL');
    if (victims > 0.25) await this.#lab.endDaemon('SIGKILL');
    else await this.#lab.endDaemon('SIGTERM');
    await this.#lab.startDaemon();
    return `interrupted, ${await outcome}`;
  }
}
