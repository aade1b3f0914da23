/**
 * Random histories of a guest that writes to logical volumes: saves of both kinds, restores, clones, deletes. Run by lvm.test.ts
 * inside the guest with LVM. A campaign: `STASIS_SEED=42 STASIS_STEPS=60 node --test test/faults/lvm.test.ts`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GroundKind } from '../support/grounds.ts';
import { Lab } from '../support/lab.ts';
import { PLAIN_VOLUMES, THIN_VOLUMES } from '../support/lvm-ground.ts';
import { Random } from '../support/random.ts';
import {
  changeContent,
  checkHousekeeping,
  checkImages,
  contentOf,
  REGION,
  type Content,
} from '../support/rules.ts';

const GUEST = 'web1';
const CLONE = 'copy';
const SEED = Number(process.env['STASIS_SEED'] ?? 1);
const STEPS = Number(process.env['STASIS_STEPS'] ?? 5);

for (const kind of [THIN_VOLUMES, PLAIN_VOLUMES]) {
  test(`after ${STEPS} random steps on ${kind.name}, seed ${SEED}, every image holds what it was`, async (t) => {
    await using lab = await Lab.on(kind);
    {
      await using witness = await lab.running(GUEST, { system: 'bare' });
      await witness.fill(SEED, 1);
    }
    const history = new History(lab, kind);
    for (let step = 0; step < STEPS; step += 1) t.diagnostic(`${step}: ${await history.next()}`);
    await history.end();
  });
}

class History {
  readonly #lab: Lab;
  readonly #maxPauseMs: number | undefined;
  readonly #random = new Random(SEED);
  readonly #images = new Map<string, Content>();
  #made = 0;

  constructor(lab: Lab, { maxPauseMs }: GroundKind) {
    this.#lab = lab;
    this.#maxPauseMs = maxPauseMs;
  }

  /** Lets something happen to a guest that runs, and checks what it holds. @returns what it was */
  async next(): Promise<string> {
    this.#made += 1;
    const content = await changeContent(this.#lab, GUEST, this.#made);
    const image = this.#images.size === 0 ? undefined : this.#random.of([...this.#images.keys()]);
    const save = { what: 'live save', becomes: content, act: () => this.#saveLive(content) };
    const { what, becomes, act } = this.#random.of([
      save,
      { what: 'save and start', becomes: content, act: () => this.#saveAndStart() },
      ...(image === undefined ? [save] : this.#with(image, content)),
    ]);
    await act();
    assert.deepEqual(await contentOf(this.#lab, GUEST), becomes, what);
    await checkHousekeeping(this.#lab, GUEST);
    return what;
  }

  /** Every image is what it was; without any, and without its guest, the user's volumes hold what it wrote, and no other is left. */
  async end(): Promise<void> {
    await checkImages(this.#lab, GUEST, this.#images);
    for (const name of this.#images.keys()) await this.#lab.client.deleteSaveImage(GUEST, name);
    const { disk } = await changeContent(this.#lab, GUEST, 1000);
    const brought = await this.#lab.disksOf(GUEST);
    await this.#lab.client.stop(GUEST);
    await this.#lab.client.undefineGuest(GUEST);
    assert.deepEqual([await this.#lab.layersOnGround(), await this.#lab.files()], [[], []]);
    await this.#lab.defineOn('again', brought, { system: 'bare' });
    await this.#lab.client.start('again');
    await using witness = await this.#lab.witness('again');
    assert.equal((await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib)).checksum, disk);
    const { apartAtStart } = await witness.status();
    assert.ok(apartAtStart <= 1, 'of both disks');
  }

  #with(image: string, present: Content) {
    const { client } = this.#lab;
    const held = this.#images.get(image) ?? assert.fail(image);
    return [
      { what: `restore ${image}`, becomes: held, act: () => client.restoreSaveImage(GUEST, image) },
      { what: `clone ${image}`, becomes: present, act: () => this.#clone(image, held) },
      { what: `delete ${image}`, becomes: present, act: () => this.#delete(image) },
    ];
  }

  async #saveLive(content: Content): Promise<void> {
    const name = `image${this.#made}`;
    const maxPause = this.#maxPauseMs === undefined ? {} : { maxPauseMs: this.#maxPauseMs };
    await this.#lab.client.createSaveImage(GUEST, { name, live: true, ...maxPause });
    this.#images.set(name, content);
  }

  async #saveAndStart(): Promise<void> {
    await this.#lab.client.createSaveImage(GUEST);
    await this.#lab.client.start(GUEST);
  }

  async #delete(image: string): Promise<void> {
    await this.#lab.client.deleteSaveImage(GUEST, image);
    this.#images.delete(image);
  }

  /** The clone holds what the image does, and takes nothing with it when it goes. */
  async #clone(image: string, held: Content): Promise<void> {
    const { client } = this.#lab;
    await client.restoreSaveImage(GUEST, image, { asNewGuest: CLONE });
    assert.deepEqual(await contentOf(this.#lab, CLONE), held, `the clone of ${image}`);
    await changeContent(this.#lab, CLONE, 2000 + this.#made);
    await client.stop(CLONE);
    await client.undefineGuest(CLONE);
  }
}
