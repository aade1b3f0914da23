/**
 * The images of a guest as a graph over time, newest first, drawn like the history of a repository: a line goes from
 * each image down to the one it derives from, branches stand beside each other, and the guest's present is the top of
 * its own line.
 */
import type { Image } from '../api/schemas.ts';

export interface TreeRow {
  /** null: the guest's present */
  readonly image: Image | null;
  /** which line from the left it stands on */
  readonly lane: number;
  /** of the row it derives from */
  readonly parentRow: number | null;
}

export interface TreeLayout {
  readonly rows: readonly TreeRow[];
  readonly lanes: number;
}

/** @param current name of the image that the guest's present derives from */
export function layOutTree(images: readonly Image[], current: string | null): TreeLayout {
  const newestFirst = images.toSorted((a, b) => b.createdAt.localeCompare(a.createdAt));
  const rowOf = new Map(newestFirst.map((image, index) => [image.name, index + 1]));
  /** per lane: the row that its line goes down to, or undefined when the lane is free */
  const lanes: (number | undefined)[] = [];
  const place = (row: number, parent: string | null): TreeRow => {
    const waiting = lanes.indexOf(row);
    const free = lanes.indexOf(undefined);
    const lane = waiting >= 0 ? waiting : free >= 0 ? free : lanes.length;
    // All lines that came down to here end here; one goes on to the parent.
    for (const [index, target] of lanes.entries()) if (target === row) lanes[index] = undefined;
    const parentRow = rowOf.get(parent ?? '') ?? null;
    lanes[lane] = parentRow ?? undefined;
    widest = Math.max(widest, lane + 1);
    return { image: newestFirst[row - 1] ?? null, lane, parentRow };
  };
  let widest = 1;
  const rows = [place(0, current), ...newestFirst.map(({ parent }, index) => place(index + 1, parent))];
  return { rows, lanes: widest };
}
