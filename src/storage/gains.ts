/**
 * What would go if an image let go of its layers: the model's collecting (layers.ts) for one image, told in time that
 * doesn't grow with the forest. Pure.
 */
import type { LayerForest } from './layers.ts';

export interface Gain {
  /** layers that would be removed */
  readonly removed: readonly string[];
  /** layers of which each would be merged with the one that stands on it: what both hold is freed once */
  readonly merged: readonly { readonly layer: string; readonly child: string }[];
}

export interface HeldForest extends Pick<LayerForest, 'layers' | 'heads'> {
  /** how many images pin a layer; a reader counts as one */
  readonly pins: ReadonlyMap<string, number>;
}

/** @returns what an image's pins hold alone, for any number of images over the same forest */
export function gains({ layers, heads, pins }: HeldForest): (pinned: readonly string[]) => Gain {
  const byId = new Map(layers.map((layer) => [layer.id, layer]));
  const childrenOf = Map.groupBy(layers, ({ parent }) => parent);

  return (pinned) => {
    const removed = new Set<string>();
    const merged = new Map<string, string>();
    const letGo = (id: string, otherPins: number): void => {
      const layer = byId.get(id);
      if (layer === undefined || otherPins > 0 || heads.has(id)) return;
      const [child, ...others] = (childrenOf.get(id) ?? []).filter((each) => !removed.has(each.id));
      if (others.length > 0) return;
      if (child === undefined) {
        if (layer.root) return;
        removed.add(id);
        merged.delete(id);
        // What it stood on may have been there for it alone.
        if (layer.parent !== null) letGo(layer.parent, pins.get(layer.parent) ?? 0);
      } else if (layer.parent !== null || layer.fixed !== true) {
        merged.set(id, child.id);
      }
    };
    for (const id of pinned) letGo(id, (pins.get(id) ?? 0) - 1);
    return { removed: [...removed], merged: [...merged].map(([layer, child]) => ({ layer, child })) };
  };
}
