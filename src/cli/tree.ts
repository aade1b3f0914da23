/** The images of a guest as the tree they are: each hangs on the one the guest derived from when it was taken. */
import type { Guest, Image } from '../api/schemas.ts';
import { paint, styleOfState } from './style.ts';
import { renderTable, type Cell, type Column } from './table.ts';
import { printable } from './text-width.ts';
import { formatAge, formatBytes, formatDuration, formatGain } from './units.ts';

const COLUMNS: readonly Column[] = [
  { title: 'IMAGE', flexible: true },
  { title: 'TAKEN', align: 'right' },
  { title: 'STORED', align: 'right' },
  { title: 'FREES', align: 'right', spare: true },
  { title: 'HOW', spare: true },
  { title: 'DESCRIPTION', flexible: true, spare: true },
];

/** The lines of one guest's tree, at most `width` columns wide; ● marks where the guest is now. */
export function renderTree(
  guest: Guest,
  images: readonly Image[],
  width: number,
  nowMs: number = Date.now(),
): string[] {
  const rows = layOutTree(images).map(({ prefix, image }): Cell[] => [
    {
      text: `${prefix}${image.current ? '●' : '○'} ${markedName(image)}`,
      style: image.current ? 'bold' : [],
    },
    formatAge(image.createdAt, nowMs),
    formatBytes(image.storedBytes),
    formatGain(image),
    howTaken(image),
    { text: image.description, style: 'dim' },
  ]);
  const state = paint(styleOfState(guest.state), guest.state);
  const title = `${paint('bold', printable(guest.name))}  ${state}`;
  if (rows.length === 0) return [title, 'no images'];
  return [title, ...renderTable(COLUMNS, rows, width)];
}

/** Its name, and whether nothing removes it. */
export function markedName({ name, protected: isProtected }: Image): string {
  return isProtected ? `${name} [protected]` : name;
}

/** `live, paused 13 ms` or `stopped`, and the state when it isn't `ready`. */
export function howTaken(image: Image): string {
  const how = image.live ? 'live' : 'stopped';
  const pause = image.pauseMs === null ? [] : [`paused ${formatDuration(image.pauseMs)}`];
  return [how, ...pause, ...(image.state === 'ready' ? [] : [image.state])].join(', ');
}

export interface Branch {
  /** the lines that lead to the image */
  readonly prefix: string;
  readonly image: Image;
}

/** Every image exactly once, each under its parent, oldest first. An image whose parent is gone is a root. */
export function layOutTree(images: readonly Image[]): Branch[] {
  const byAge = images.toSorted((a, b) => a.createdAt.localeCompare(b.createdAt));
  const byParent = Map.groupBy(byAge, (image) => image.parent);
  const branches: Branch[] = [];
  const placed = new Set<string>();
  const place = (image: Image, prefix: string, childPrefix: string) => {
    if (placed.has(image.name)) return;
    placed.add(image.name);
    branches.push({ prefix, image });
    const children = byParent.get(image.name) ?? [];
    for (const [index, child] of children.entries()) {
      const last = index === children.length - 1;
      place(child, `${childPrefix}${last ? '└─' : '├─'}`, `${childPrefix}${last ? '  ' : '│ '}`);
    }
  };
  const names = new Set(byAge.map((image) => image.name));
  const isRoot = (image: Image) => image.parent === null || !names.has(image.parent);
  for (const image of byAge.filter(isRoot)) place(image, '', '');
  // Parents that form a ring can't come from the daemon; if they do, no image may be lost from sight.
  for (const image of byAge) place(image, '', '');
  return branches;
}
