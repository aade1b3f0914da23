import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  afterCollectStep,
  collectSteps,
  isWritable,
  type Layer,
  type LayerForest,
} from '../../src/storage/layers.ts';

/**
 * A disk as the model promises it: each layer holds some blocks, and is read through to its parent where it holds
 * none. Histories of save, restore, delete, clone and write are run against it, and after each action every image
 * must still read as it did when it was taken.
 */
class ModelDisk {
  readonly #blocks = new Map<string, Map<number, number>>();
  #layers: Layer[] = [{ id: 'root', parent: null, root: true }];
  readonly #heads = new Map<string, string>([['guest', 'root']]);
  readonly #images = new Map<string, { layer: string; content: string }>();
  #made = 0;

  constructor() {
    this.#blocks.set('root', new Map([[0, 1]]));
  }

  forest(): LayerForest {
    return {
      layers: this.#layers,
      heads: new Set(this.#heads.values()),
      pinned: new Set([...this.#images.values()].map((image) => image.layer)),
      owners: new Map([['root', this.#heads.get('guest') ?? '']]),
    };
  }

  write(guest: string, block: number, value: number): void {
    if (this.#heads.has(guest)) this.#blocks.get(this.#writableHead(guest))?.set(block, value);
  }

  save(guest: string, name: string, live: boolean, how: How): void {
    const head = this.#heads.get(guest);
    if (head === undefined || this.#images.has(name)) return;
    const content = this.read(head);
    const layer = live && how === 'copy' ? this.#copy(head) : head;
    this.#images.set(name, { layer, content });
    if (live && how === 'switch') this.#heads.set(guest, this.#overlay(head));
  }

  restore(guest: string, name: string, andDelete: boolean, how: How): void {
    const image = this.#images.get(name);
    if (image === undefined || !this.#heads.has(guest)) return;
    const wasAlone =
      this.#heads.get(guest) === image.layer && this.#layers.every((layer) => layer.parent !== image.layer);
    const pins = [...this.#images.values()].filter((other) => other.layer === image.layer).length;
    if (andDelete) this.#images.delete(name);
    if (!(andDelete && wasAlone && pins === 1)) this.#newHead(guest, image.layer, how);
    assert.equal(
      this.read(this.#heads.get(guest) ?? ''),
      image.content,
      'a restored guest finds the disk of its image',
    );
  }

  clone(from: string, guest: string, how: How): void {
    const image = this.#images.get(from);
    if (image !== undefined && !this.#heads.has(guest)) this.#newHead(guest, image.layer, how);
  }

  undefine(guest: string): void {
    if (guest !== 'guest') this.#heads.delete(guest);
  }

  delete(name: string): void {
    this.#images.delete(name);
  }

  /** Does what the collector's steps say to files, to blocks. */
  collect(limit: number): void {
    for (let count = 0; count < limit; count += 1) {
      const [step] = collectSteps(this.forest());
      if (step === undefined) return;
      const gone = this.#blocks.get(step.layer) ?? new Map<number, number>();
      if (step.action === 'replace') {
        this.#blocks.set(step.into, gone);
      } else if (step.action !== 'remove') {
        const into = this.#blocks.get(step.into) ?? new Map<number, number>();
        const merged = step.action === 'absorb' ? new Map([...gone, ...into]) : new Map([...into, ...gone]);
        this.#blocks.set(step.into, merged);
      }
      this.#layers = [...afterCollectStep(this.forest(), step).layers];
      if (step.action === 'fold' || step.action === 'replace') {
        for (const [guest, head] of this.#heads) if (head === step.layer) this.#heads.set(guest, step.into);
        for (const image of this.#images.values()) if (image.layer === step.layer) image.layer = step.into;
      }
      this.#blocks.delete(step.layer);
    }
  }

  read(layer: string): string {
    const content = new Map<number, number>();
    for (
      let next: string | null = layer;
      next !== null;
      next = this.#layers.find(({ id }) => id === next)?.parent ?? null
    ) {
      for (const [block, value] of this.#blocks.get(next) ?? [])
        if (!content.has(block)) content.set(block, value);
    }
    return JSON.stringify([...content].toSorted(([a], [b]) => a - b));
  }

  check(): void {
    const ids = new Set(this.#layers.map(({ id }) => id));
    for (const { parent } of this.#layers)
      assert.ok(parent === null || ids.has(parent), 'no layer stands on nothing');
    for (const [name, { layer, content }] of this.#images)
      assert.equal(this.read(layer), content, `image ${name} is exact`);
    assert.equal(this.#layers.filter((layer) => layer.root).length, 1, "the user's own file stays");
  }

  checkCollected(): void {
    const { layers, heads, pinned } = this.forest();
    for (const layer of layers) {
      const children = layers.filter(({ parent }) => parent === layer.id).length;
      const held = heads.has(layer.id) || pinned.has(layer.id);
      const carriesClone = layer.root && children === 1 && !this.#ownerStandsOn(layer.id);
      assert.ok(
        held || children > 1 || carriesClone || (layer.root && this.#ownerStandsOn(layer.id)),
        `layer ${layer.id} has its reason`,
      );
    }
  }

  /** What the guest wrote is in the user's own file, when there is nothing but the guest. */
  checkBack(): void {
    assert.deepEqual(this.#layers, [{ id: 'root', parent: null, root: true }]);
    assert.equal(this.#heads.get('guest'), 'root');
  }

  present(guest: string): string {
    return this.read(this.#heads.get(guest) ?? '');
  }

  imageNames(): string[] {
    return [...this.#images.keys()];
  }

  #ownerStandsOn(id: string): boolean {
    for (let next: string | null = this.#heads.get('guest') ?? ''; next !== null; next = this.#parentOf(next))
      if (next === id) return true;
    return false;
  }

  #parentOf(id: string): string | null {
    return this.#layers.find((layer) => layer.id === id)?.parent ?? null;
  }

  #writableHead(guest: string): string {
    const head = this.#heads.get(guest) ?? '';
    if (isWritable(this.forest(), head)) return head;
    return this.#newHead(guest, head, 'switch');
  }

  #newHead(guest: string, from: string, how: How): string {
    const id = how === 'copy' ? this.#copy(from) : this.#overlay(from);
    this.#heads.set(guest, id);
    return id;
  }

  #overlay(parent: string): string {
    return this.#make(parent, new Map());
  }

  /** Stands on what its original stands on, and holds the same. */
  #copy(original: string): string {
    return this.#make(this.#parentOf(original), new Map(this.#blocks.get(original)));
  }

  #make(parent: string | null, blocks: Map<number, number>): string {
    this.#made += 1;
    const id = `layer${this.#made}`;
    this.#layers.push({ id, parent, root: false });
    this.#blocks.set(id, blocks);
    return id;
  }
}

/** By which driver; of one disk it may be another each time. */
type How = 'switch' | 'copy';

const guest = fc.constantFrom('guest', 'clone1', 'clone2');
const image = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const how = fc.constantFrom('switch' as const, 'copy' as const);
const action = fc.oneof(
  fc.record({ act: fc.constant('write' as const), guest, block: fc.nat(5), value: fc.nat(1000) }),
  fc.record({ act: fc.constant('save' as const), guest, image, live: fc.boolean(), how }),
  fc.record({ act: fc.constant('restore' as const), guest, image, andDelete: fc.boolean(), how }),
  fc.record({ act: fc.constant('delete' as const), image }),
  fc.record({ act: fc.constant('clone' as const), image, guest, how }),
  fc.record({ act: fc.constant('undefine' as const), guest }),
  fc.record({ act: fc.constant('collect' as const), limit: fc.nat(3) }),
);

function run(disk: ModelDisk, step: typeof action extends fc.Arbitrary<infer T> ? T : never): void {
  switch (step.act) {
    case 'write':
      return disk.write(step.guest, step.block, step.value);
    case 'save':
      return disk.save(step.guest, step.image, step.live, step.how);
    case 'restore':
      return disk.restore(step.guest, step.image, step.andDelete, step.how);
    case 'delete':
      return disk.delete(step.image);
    case 'clone':
      return disk.clone(step.image, step.guest, step.how);
    case 'undefine':
      return disk.undefine(step.guest);
    case 'collect':
      return disk.collect(step.limit);
    default:
      return step satisfies never;
  }
}

test('after any history, by whatever drivers, every image reads as it was taken, nothing without a reason is left, and all goes back', () => {
  fc.assert(
    fc.property(fc.array(action, { minLength: 10, maxLength: 60, size: 'max' }), (actions) => {
      const disk = new ModelDisk();
      for (const step of actions) {
        run(disk, step);
        disk.check();
      }
      disk.collect(Number.POSITIVE_INFINITY);
      disk.check();
      disk.checkCollected();

      const present = disk.present('guest');
      for (const name of disk.imageNames()) disk.delete(name);
      for (const clone of ['clone1', 'clone2']) disk.undefine(clone);
      disk.collect(Number.POSITIVE_INFINITY);
      disk.checkBack();
      assert.equal(disk.present('guest'), present);
    }),
    { numRuns: 3000 },
  );
});

test('suspend and resume never make the chain grow', () => {
  const disk = new ModelDisk();
  for (let round = 0; round < 100; round += 1) {
    disk.save('guest', 'default', false, 'copy');
    disk.restore('guest', 'default', true, 'copy');
    disk.write('guest', round % 6, round);
    disk.collect(Number.POSITIVE_INFINITY);
    assert.equal(disk.forest().layers.length, 1);
  }
});

test('a layer in use is never collected', () => {
  const layers: Layer[] = [
    { id: 'root', parent: null, root: true },
    { id: 'a', parent: 'root', root: false },
    { id: 'b', parent: 'a', root: false },
  ];
  const owners = new Map([['root', 'b']]);
  assert.deepEqual(
    collectSteps({ layers, owners, heads: new Set(['b']), pinned: new Set(['root', 'a']) }),
    [],
  );
  assert.deepEqual(collectSteps({ layers, owners, heads: new Set(['b']), pinned: new Set(['root']) }), [
    { action: 'absorb', layer: 'a', into: 'b' },
  ]);
  assert.deepEqual(collectSteps({ layers, owners, heads: new Set(['b']), pinned: new Set(['a']) }), [
    { action: 'fold', layer: 'a', into: 'root' },
  ]);
  assert.deepEqual(
    collectSteps({
      layers,
      owners: new Map([['root', 'root']]),
      heads: new Set(['root']),
      pinned: new Set(['a']),
    }),
    [{ action: 'remove', layer: 'b' }],
  );
});
