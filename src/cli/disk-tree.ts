/** A disk as the tree of layers it is. */
import type { DiskTree } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { paint } from './style.ts';
import { renderTable, type Cell, type Column } from './table.ts';
import { printable } from './text-width.ts';
import { count, formatBytes } from './units.ts';

type Layer = DiskTree['layers'][number];

const COLUMNS: readonly Column[] = [
  { title: 'LAYER' },
  { title: 'SIZE', align: 'right', spare: true },
  { title: 'STORED', align: 'right' },
  { title: 'HELD BY', flexible: true },
  { title: 'FORMAT', spare: true },
  { title: 'FILE', flexible: true, spare: true, cut: 'start' },
];

/** Enough of an id to tell two layers of a disk apart, and to find it in the name of its file. */
const ID_COLUMNS = 8;

/** The lines of one disk, at most `width` columns wide; ● marks the layer that the guest writes to. */
export function renderDisk(disk: DiskTree, width: number): string[] {
  const facts = [
    disk.format,
    disk.bus,
    ...(disk.driver === null ? [] : [disk.driver]),
    ...(disk.readonly ? ['read-only'] : []),
  ];
  const title = `${paint('bold', printable(`${disk.guest} / ${disk.disk}`))}  ${facts.join(', ')}`;
  if (disk.layers.length === 0) return [title, `not captured: ${printable(disk.path)}`];
  const layers = layOutLayers(disk.layers);
  const rows = layers.map(({ prefix, layer }): Cell[] => {
    const isHead = layer.writers.includes(disk.guest);
    const name = layer.root ? 'root' : layer.id.slice(0, ID_COLUMNS);
    return [
      { text: `${prefix}${layer.writers.length > 0 ? '●' : '○'} ${name}`, style: isHead ? 'bold' : [] },
      formatBytes(layer.sizeBytes),
      layer.storedBytes === null ? 'missing' : formatBytes(layer.storedBytes),
      heldBy(layer, disk.guest),
      layer.format,
      layer.path,
    ];
  });
  return [
    title,
    `${count(layers.length, 'layer')}, ${formatBytes(storedBytes(disk))} stored`,
    ...renderTable(COLUMNS, rows, width),
  ];
}

function storedBytes({ layers }: DiskTree): number {
  return layers.reduce((sum, layer) => sum + (layer.storedBytes ?? 0), 0);
}

/** Another guest's images are told with its name. */
function heldBy({ writers, images, readers }: Layer, guest: string): string {
  return [
    ...writers.map((writer) => `${writer} writes`),
    ...images.map((image) => (image.guest === guest ? image.name : `${image.guest} / ${image.name}`)),
    ...(readers > 0 ? ['being read'] : []),
  ].join(', ');
}

export interface LayerBranch {
  /** the lines that lead to the layer */
  readonly prefix: string;
  readonly layer: Layer;
}

/**
 * Every layer exactly once, each below its parent. Only where two or more stand on one does the tree branch off: a
 * chain of a hundred layers is a list.
 */
export function layOutLayers(layers: readonly Layer[]): LayerBranch[] {
  const ids = new Set(layers.map(({ id }) => id));
  const byParent = Map.groupBy(layers, ({ parent }) => (parent !== null && ids.has(parent) ? parent : null));
  const branches: LayerBranch[] = [];
  const place = (first: Layer, firstPrefix: string, rest: string) => {
    let prefix = firstPrefix;
    for (let layer: Layer | undefined = first; layer !== undefined; prefix = rest) {
      branches.push({ prefix, layer });
      const children: readonly Layer[] = byParent.get(layer.id) ?? [];
      layer = children.length === 1 ? children[0] : undefined;
      if (children.length < 2) continue;
      for (const [index, child] of children.entries()) {
        const last = index === children.length - 1;
        place(child, `${rest}${last ? '└─' : '├─'}`, `${rest}${last ? '  ' : '│ '}`);
      }
    }
  };
  for (const root of byParent.get(null) ?? []) place(root, '', '');
  return branches;
}

/** The disk of this name. @throws StasisError `invalid-request` naming those that there are */
export function diskNamed<T extends { readonly disk: string }>(
  disks: readonly T[],
  name: string,
  guest: string,
): T {
  const found = disks.find(({ disk }) => disk === name);
  if (found !== undefined) return found;
  const known = disks.map(({ disk }) => disk).join(', ') || 'none';
  throw new StasisError('invalid-request', `guest ${guest} has no disk "${name}" (its disks: ${known})`, {
    guest,
  });
}
