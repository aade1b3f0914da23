/**
 * The layer model, pure: which layers may be written, which may go, and how. Nothing here touches a file.
 *
 * Each disk is a tree of layers. An image *pins* one layer per disk; a guest's *head* is the layer it writes to.
 * Two rules keep every image exact:
 *  - a layer is writable only while it is a head, has no child and no pin;
 *  - a layer's content, as seen through its chain, never changes while anything else stands on it.
 *
 * A layer without parent holds all of its content itself: the *root*, which is the user's own file, and copies of it. So
 * a tree need not hang together; what is one is what comes from one root.
 *
 * What nothing holds any more is collected, one step at a time, until no step is left:
 *  - a layer with no pin, no child and no guest is *removed*, unless it is the root;
 *  - a layer with no pin, no guest and exactly one child is *merged* with that child. One that has a parent is
 *    `absorbed`: what the child doesn't have of it is copied up into the child, and it goes. One that has none stays: the
 *    child is `folded` down into it, and the child goes;
 *  - the root, when nothing holds it and nothing stands on it while the guest whose disk it is stands on a copy, is
 *    *replaced* by that copy: so that what the guest wrote is in the user's own file in the end.
 * Nothing is folded into a root but what the guest whose disk it is stands on.
 *
 * All leave the content of every layer that is left as it was, at every instant, however often they are begun again.
 * (Only a fold of the very layer that a guest is writing to needs care: see `images/collect.ts`.)
 */

export interface Layer {
  readonly id: string;
  readonly parent: string | null;
  /** the file the user brought */
  readonly root: boolean;
  /** nothing can be folded into it (`StorageDriver.canTakeIn`) */
  readonly fixed?: boolean;
}

export interface LayerForest {
  readonly layers: readonly Layer[];
  /** ids of layers that are heads */
  readonly heads: ReadonlySet<string>;
  /** ids of layers that images pin */
  readonly pinned: ReadonlySet<string>;
  /** for each root the head of the guest whose disk it is, by their ids */
  readonly owners: ReadonlyMap<string, string>;
}

export type CollectStep =
  | { readonly action: 'remove'; readonly layer: string }
  | { readonly action: 'absorb' | 'fold' | 'replace'; readonly layer: string; readonly into: string };

function children(forest: LayerForest, id: string): readonly Layer[] {
  return forest.layers.filter((layer) => layer.parent === id);
}

/** May the guest whose head this is write to it as it stands? Otherwise a new head has to be laid over it first. */
export function isWritable(forest: LayerForest, id: string): boolean {
  return forest.heads.has(id) && !forest.pinned.has(id) && children(forest, id).length === 0;
}

/** All steps that could be done now, removals first: a removal may spare a merge. */
export function collectSteps(forest: LayerForest): CollectStep[] {
  const childrenOf = Map.groupBy(forest.layers, (layer) => layer.parent);
  const unheld = forest.layers.filter((layer) => !forest.heads.has(layer.id) && !forest.pinned.has(layer.id));
  const removals: CollectStep[] = [];
  const merges: CollectStep[] = [];
  for (const layer of unheld) {
    const [child, ...others] = childrenOf.get(layer.id) ?? [];
    if (child === undefined) {
      if (layer.root) merges.push(...replacement(forest, layer));
      else removals.push({ action: 'remove', layer: layer.id });
    } else if (others.length === 0) {
      merges.push(...merge(forest, layer, child));
    }
  }
  return [...removals, ...merges];
}

function merge(forest: LayerForest, layer: Layer, child: Layer): CollectStep[] {
  if (layer.parent !== null) return [{ action: 'absorb', layer: layer.id, into: child.id }];
  const owner = layer.root ? forest.owners.get(layer.id) : undefined;
  const isStrange = owner !== undefined && !chain(forest, owner).some(({ id }) => id === layer.id);
  return layer.fixed === true || isStrange ? [] : [{ action: 'fold', layer: child.id, into: layer.id }];
}

function replacement(forest: LayerForest, root: Layer): CollectStep[] {
  const owner = forest.owners.get(root.id);
  const bottom = owner === undefined ? undefined : chain(forest, owner).at(-1);
  return bottom === undefined || bottom.id === root.id
    ? []
    : [{ action: 'replace', layer: bottom.id, into: root.id }];
}

/** From the layer itself down to the one that stands on nothing. */
function chain(forest: LayerForest, id: string): Layer[] {
  const found: Layer[] = [];
  for (let next: string | null = id; next !== null;) {
    const layer = forest.layers.find((candidate) => candidate.id === next);
    if (layer === undefined) break;
    found.push(layer);
    next = layer.parent;
  }
  return found;
}

/** The forest after a step: the proof of what a step means, and what the property tests hold the files against. */
export function afterCollectStep(forest: LayerForest, step: CollectStep): LayerForest {
  const gone = step.layer;
  const layers = forest.layers.filter((layer) => layer.id !== gone);
  switch (step.action) {
    case 'remove':
      return { ...forest, layers };
    case 'absorb': {
      const parent = forest.layers.find((layer) => layer.id === gone)?.parent ?? null;
      return {
        ...forest,
        layers: layers.map((layer) => (layer.id === step.into ? { ...layer, parent } : layer)),
      };
    }
    case 'fold':
    case 'replace': {
      const moved = (id: string) => (id === gone ? step.into : id);
      return {
        layers: layers.map((layer) => (layer.parent === gone ? { ...layer, parent: step.into } : layer)),
        heads: new Set([...forest.heads].map(moved)),
        pinned: new Set([...forest.pinned].map(moved)),
        owners: new Map([...forest.owners].map(([root, head]) => [root, moved(head)])),
      };
    }
    default:
      return step satisfies never;
  }
}
