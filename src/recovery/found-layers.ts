/**
 * The layers of a home as its record files tell of them, held against the files. Where the two differ the file is right:
 * a qcow2 header says what it stands on, and a file that isn't as its seal has it holds something else.
 */
import { basename, dirname } from 'node:path';
import type { LayerRecord } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import type { ImageTool } from '../qemu/block/image-tool.ts';
import type { Drivers } from '../storage/drivers.ts';
import { describeChange, type FileIdentity } from '../storage/identity.ts';
import type { LayerEntry } from './record-files.ts';

/** How layers are looked at. */
export interface LayerTools {
  readonly drivers: Drivers;
  readonly imageTool: ImageTool;
}

export interface FoundLayer extends Omit<LayerEntry, 'seal'> {
  /** UUID */
  readonly guest: string;
  /** null: somebody may have written to it since the record */
  readonly seal: FileIdentity | null;
  /** as it is now; undefined when it isn't there */
  readonly now: FileIdentity | undefined;
  /** why nothing that is read from it can be relied on */
  readonly problem: string | undefined;
}

/** All of them, of all guests: a clone's stand on another's. */
export class FoundLayers {
  readonly #byId = new Map<string, FoundLayer>();
  readonly #byPath = new Map<string, FoundLayer>();
  /** a copy that took the place of its root, and that root: see `replaceRoot` in storage/driver.ts */
  readonly #moved = new Map<string, string>();

  /** where layers are made, and where some are */
  readonly #places: Set<string>;

  private constructor(places: ReadonlySet<string>) {
    this.#places = new Set(places);
  }

  /** @param places directories in which Stasis makes layers */
  static async look(
    tools: LayerTools,
    entries: readonly (LayerEntry & { guest: string })[],
    places: ReadonlySet<string>,
  ): Promise<FoundLayers> {
    const found = new FoundLayers(places);
    for (const entry of entries) found.add(await lookAt(tools, entry));
    found.#followMoved();
    for (const layer of found.all()) await found.#standOnWhatItsHeaderSays(tools, layer);
    found.#dropUnfounded();
    return found;
  }

  all(): FoundLayer[] {
    return [...this.#byId.values()];
  }

  /** The first one keeps an id and a path. */
  add(layer: FoundLayer): void {
    if (this.#byId.has(layer.id) || this.#byPath.has(layer.path)) return;
    this.#byId.set(layer.id, layer);
    this.#byPath.set(layer.path, layer);
    this.#places.add(dirname(layer.path));
  }

  /** Whether a layer of that id can be there. A QEMU that a guest has broken out of may name any file as its own. */
  canBe({ id, path }: Pick<FoundLayer, 'id' | 'path'>): boolean {
    return (
      this.#places.has(dirname(path)) &&
      basename(path)
        .replace(/\.(qcow2|raw)$/, '')
        .endsWith(`-${id}`)
    );
  }

  find(id: string): FoundLayer | undefined {
    return this.#byId.get(this.#moved.get(id) ?? id);
  }

  at(path: string): FoundLayer | undefined {
    return this.#byPath.get(path);
  }

  /** From the layer down to the one that stands on nothing; cut short where one is unknown. */
  chainOf(id: string): FoundLayer[] {
    const chain: FoundLayer[] = [];
    for (let next: string | null = id; next !== null;) {
      const layer = this.find(next);
      if (layer === undefined || chain.includes(layer)) break;
      chain.push(layer);
      next = layer.parent;
    }
    return chain;
  }

  /** Why an image that pins a layer would not read what it did. @param written ids of all layers that guests may have written to */
  whyNot(id: string, written: ReadonlySet<string>): string | undefined {
    const chain = this.chainOf(id);
    if (chain.length === 0) return 'no record knows its layer, or one that it stands on';
    const bad = chain.find(({ problem }) => problem !== undefined);
    if (bad !== undefined) return bad.problem;
    const changed = chain.find((layer) => layer.seal === null && written.has(layer.id));
    return changed && `a guest may have written to ${changed.path} since`;
  }

  #followMoved(): void {
    for (const layer of this.all()) {
      if (layer.now !== undefined || layer.seal === null) continue;
      const root = this.all().find(({ root: isRoot, tree }) => isRoot && tree === layer.tree);
      if (root?.now === undefined || describeChange(layer.seal, root.now) !== undefined) continue;
      this.#moved.set(layer.id, root.id);
      this.#byId.delete(layer.id);
      this.#byId.set(root.id, { ...root, seal: root.now, problem: undefined });
    }
  }

  /** Of a file that may have been changed by Stasis itself since: merges rewrite headers. */
  async #standOnWhatItsHeaderSays(tools: LayerTools, layer: FoundLayer): Promise<void> {
    if (layer.format !== 'qcow2' || layer.parent === null || layer.now === undefined) return;
    if (layer.seal !== null && layer.problem === undefined) return;
    try {
      const backing = await backingOf(tools, layer.path);
      const below = backing === undefined ? undefined : this.at(backing);
      const unknown = `${layer.path} stands on ${backing ?? 'nothing'}, which no record knows`;
      this.#replace({ ...layer, ...(below === undefined ? { problem: unknown } : { parent: below.id }) });
    } catch (error) {
      this.#replace({ ...layer, problem: StasisError.from(error).message });
    }
  }

  /** What stands on nothing that is known can't be read, and must not be taken for what stands on nothing. */
  #dropUnfounded(): void {
    const unfounded = this.all().filter(({ id }) => this.chainOf(id).at(-1)?.parent !== null);
    for (const { id, path } of unfounded) {
      this.#byId.delete(id);
      this.#byPath.delete(path);
    }
  }

  #replace(layer: FoundLayer): void {
    this.#byId.set(layer.id, layer);
    this.#byPath.set(layer.path, layer);
  }
}

async function lookAt(
  { drivers }: LayerTools,
  { seal: recorded, ...entry }: LayerEntry & { guest: string },
): Promise<FoundLayer> {
  try {
    const now = await drivers.get(entry.driver).identity(entry);
    // A copy of the whole home, put back from elsewhere, has other inodes.
    const change = recorded === null ? undefined : describeChange({ ...recorded, inode: now.inode }, now);
    if (change !== undefined)
      return { ...entry, seal: recorded, now, problem: `${entry.path}: ${change} since Stasis let go of it` };
    return { ...entry, seal: recorded === null ? null : now, now, problem: undefined };
  } catch (error) {
    return { ...entry, seal: recorded, now: undefined, problem: StasisError.from(error).message };
  }
}

/**
 * What a layer's header says it stands on, as Stasis wrote it there: an absolute path.
 * @throws StasisError as `ImageTool.info`
 */
export async function backingOf({ imageTool }: LayerTools, path: string): Promise<string | undefined> {
  return (await imageTool.info(path, { format: 'qcow2', inUse: true }))['backing-filename'];
}

/** As the catalog has it. What nobody writes to is sealed as it is now. */
export function layerRecord(layer: FoundLayer, heads: ReadonlySet<string>): LayerRecord {
  const { id, path, format, parent, driver, tree, guest, root, sizeBytes } = layer;
  const seal = layer.seal ?? (heads.has(id) ? null : (layer.now ?? null));
  return {
    ...{ id, path, format, parent, driver, tree, guest, sizeBytes },
    root: root ? 1 : 0,
    identity: seal === null ? null : JSON.stringify(seal),
  };
}

/** Layers are called after their disk and their id: storage/overlay.ts, storage/reflink.ts; volumes too: storage/volume-names.ts. */
export function idInName(name: string): string | undefined {
  return /-([0-9a-f]{20})(?:\.(?:qcow2|raw))?$/.exec(name)?.[1];
}
