/**
 * The layers of a guest that has no record, traced from what its images pin down to what the user brought: by the headers of
 * overlays, and by the ids that are in the names of files and volumes.
 */
import { StasisError } from '../errors.ts';
import type { Definition, DiskDefinition } from '../guests/definition.ts';
import { newId } from '../ids.ts';
import type { ManifestDisk } from '../images/manifest.ts';
import { backingOf, idInName, type LayerTools } from './found-layers.ts';
import type { ImageFile, LayerEntry } from './record-files.ts';

export class TracedLayers {
  readonly #tools: LayerTools;
  readonly #definition: Definition;
  readonly #others: readonly LayerEntry[];
  readonly #own = new Map<string, LayerEntry>();
  readonly #pins: ReadonlyMap<string, ManifestDisk>;
  /** paths of what is being traced: headers that name each other in a circle end there */
  readonly #begun = new Set<string>();

  private constructor(
    tools: LayerTools,
    definition: Definition,
    others: readonly LayerEntry[],
    pins: readonly ManifestDisk[],
  ) {
    this.#tools = tools;
    this.#definition = definition;
    this.#others = others;
    this.#pins = new Map(pins.map((pin) => [pin.layer.path, pin]));
  }

  /** All that the images pin. @param others layers that records tell of: a clone's stand on them */
  static async from(
    tools: LayerTools,
    definition: Definition,
    images: readonly ImageFile[],
    others: readonly LayerEntry[],
  ): Promise<TracedLayers> {
    const pins = images
      .flatMap(({ disks }) => disks)
      .filter(({ name }) => diskOf(definition, name) !== undefined);
    const traced = new TracedLayers(tools, definition, others, pins);
    for (const { name, layer } of pins) await traced.trace(name, layer.path);
    return traced;
  }

  at(path: string): LayerEntry | undefined {
    return this.#own.get(path) ?? this.#others.find((entry) => entry.path === path);
  }

  /** Of a disk, without those of other guests. */
  of(disk: string): LayerEntry[] {
    const tree = this.at(this.#disk(disk).path)?.tree;
    return [...this.#own.values()].filter((entry) => entry.tree === tree);
  }

  /** No image holds it, and nothing stands on it. */
  isFree({ id, path }: LayerEntry): boolean {
    const all = [...this.#own.values(), ...this.#others];
    return !this.#pins.has(path) && all.every(({ parent }) => parent !== id);
  }

  forget({ path }: LayerEntry): void {
    this.#own.delete(path);
  }

  /** Of what is at a path, and of all that it stands on. What stands on something unknown gets a parent that there is not. */
  async trace(disk: string, path: string): Promise<LayerEntry> {
    const known = this.at(path);
    if (known !== undefined) return known;
    this.#begun.add(path);
    const { path: rootPath, format, driver = 'overlay' } = this.#disk(disk);
    const isRoot = path === rootPath && this.#definition.clone === undefined;
    const id = this.#pins.get(path)?.layer.id ?? idInName(path) ?? (await this.#idInRecords(path)) ?? newId();
    const common = { id, path, sizeBytes: this.#sizeOf(disk), seal: null };
    if (isRoot)
      return this.#add({
        ...common,
        ...{ driver, tree: id, root: true, parent: null, format: format === 'qcow2' ? 'qcow2' : 'raw' },
      });
    const root = this.#begun.has(rootPath) ? this.at(rootPath) : await this.trace(disk, rootPath);
    const parent = await this.#parentOf(disk, path);
    return this.#add({
      ...{ ...common, parent, root: false, tree: root?.tree ?? id },
      format: path.endsWith('.qcow2') ? 'qcow2' : 'raw',
      driver: parent === null ? driver : 'overlay',
    });
  }

  /** With seals of what no guest may write to, as it is now. */
  async sealed(): Promise<LayerEntry[]> {
    const fixed = new Set<string>();
    for (const path of this.#pins.keys())
      for (let entry = this.at(path); entry !== undefined; entry = this.#withId(entry.parent))
        fixed.add(entry.id);
    return Promise.all([...this.#own.values()].map((entry) => this.#sealed(entry, fixed)));
  }

  async #sealed(entry: LayerEntry, fixed: ReadonlySet<string>): Promise<LayerEntry> {
    if (!fixed.has(entry.id)) return entry;
    const driver = this.#tools.drivers.get(entry.driver);
    return { ...entry, seal: await driver.identity(entry).catch(() => null) }; // what is wrong with it is found later
  }

  async #parentOf(disk: string, path: string): Promise<string | null> {
    if (!path.endsWith('.qcow2')) return null;
    const { path: root, driver = 'overlay' } = this.#disk(disk);
    const backing = await backingOf(this.#tools, path).catch(() => UNKNOWN);
    if (backing !== undefined && (backing === root || idInName(backing) !== undefined || this.at(backing)))
      return this.#begun.has(backing)
        ? (this.at(backing)?.id ?? newId())
        : (await this.trace(disk, backing)).id;
    // A copy of the user's own overlay stands on what that stands on.
    return driver === 'overlay' || backing === UNKNOWN ? newId() : null;
  }

  /** A clone's layer names what it stands on. */
  async #idInRecords(path: string): Promise<string | undefined> {
    for (const { parent, path: above, format } of this.#others) {
      if (parent === null || format !== 'qcow2' || this.#withId(parent) !== undefined) continue;
      if ((await backingOf(this.#tools, above).catch(() => undefined)) === path) return parent;
    }
    return undefined;
  }

  #withId(id: string | null): LayerEntry | undefined {
    return [...this.#own.values(), ...this.#others].find((entry) => entry.id === id);
  }

  #disk(name: string): DiskDefinition {
    const disk = diskOf(this.#definition, name);
    if (disk === undefined) throw new StasisError('internal', `the guest has no disk ${name}`);
    return disk;
  }

  #sizeOf(disk: string): number {
    return [...this.#pins.values()].find(({ name }) => name === disk)?.sizeBytes ?? 0;
  }

  #add(entry: LayerEntry): LayerEntry {
    this.#own.set(entry.path, entry);
    return entry;
  }
}

/** Of a header that can't be read. */
const UNKNOWN = '';

function diskOf({ disks }: Definition, name: string): DiskDefinition | undefined {
  return disks.find((disk) => disk.name === name);
}
