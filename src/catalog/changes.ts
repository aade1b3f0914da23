/**
 * What has changed, by guest, by image and by tree of layers: the events, operations and audit entries of a daemon at work are
 * many and concern no view. Triggers of the connection, the only one that there is, tell it, so no writer can forget to. They do so
 * before the commit: what is read after a change was counted waits for the end of its transaction.
 */
import type { DatabaseSync } from 'node:sqlite';

/** For so many it is known which: then all count as changed, once. Guests may come and go by the thousand. */
const KNOWN = 20_000;

export class Changes {
  #count = 0;
  #forgottenAt = 0;
  readonly #last = new Map<string, number>();

  /** Goes up with each change. */
  get count(): number {
    return this.#count;
  }

  /** Did anything of that change since it was so many? @param ids UUIDs of guests, ids of images, ids of trees */
  haveTouched(ids: readonly string[], since: number): boolean {
    return this.#forgottenAt > since || ids.some((id) => (this.#last.get(id) ?? 0) > since);
  }

  touch(id: string): void {
    this.#count += 1;
    if (this.#last.size >= KNOWN) {
      this.#last.clear();
      this.#forgottenAt = this.#count;
    }
    this.#last.set(id, this.#count);
  }
}

type Row = 'new' | 'old';
const treeOf = (row: Row) => `(select tree from layers where id = ${row}.layer)`;

/** Whom a row of a table is about, in SQL. A row that goes with another one finds that gone: it was told of. */
const ABOUT: Readonly<Record<string, (row: Row) => readonly string[]>> = {
  guests: (row) => [`${row}.uuid`],
  images: (row) => [`${row}.guest`, `${row}.id`],
  layers: (row) => [`${row}.tree`],
  heads: (row) => [`${row}.guest`, treeOf(row)],
  pins: (row) => [`(select guest from images where id = ${row}.image)`, treeOf(row)],
  schedules: (row) => [`${row}.guest`],
  scheduleRuns: (row) => [`${row}.guest`],
  retention: (row) => [`${row}.guest`],
};

/** Begins to count. */
export function watchChanges(connection: DatabaseSync): Changes {
  const changes = new Changes();
  connection.function('touched', { varargs: true }, (...ids) => {
    for (const id of ids) if (typeof id === 'string') changes.touch(id);
    return null;
  });
  for (const [table, about] of Object.entries(ABOUT)) {
    const touch = (change: string, ids: readonly string[]) =>
      connection.exec(
        `create temp trigger touched_${table}_${change} after ${change} on main.${table}
         begin select touched(${ids.join(', ')}); end`,
      );
    touch('insert', about('new'));
    touch('update', [...about('old'), ...about('new')]);
    touch('delete', about('old'));
  }
  return changes;
}
