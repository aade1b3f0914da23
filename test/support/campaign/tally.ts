/** What was tried how often, and how the operations came out: the table for the README. */
import type { Step } from './history.ts';

interface Row {
  steps: number;
  done: number;
  failed: number;
  readonly operations: Set<string>;
}

export class Tally {
  readonly #rows = new Map<string, Row>();
  /** how often each struck */
  readonly #failpoints = new Map<string, number>();

  add({ action, fault, outcome }: Step): void {
    const row = this.#rows.get(fault) ?? { steps: 0, done: 0, failed: 0, operations: new Set() };
    row.steps += 1;
    if (outcome === 'done') row.done += 1;
    else row.failed += 1;
    row.operations.add(action.replace(/ (image\d+|default)$/, ''));
    this.#rows.set(fault, row);
  }

  addFailpoints(struck: readonly string[]): void {
    for (const name of struck) this.#failpoints.set(name, (this.#failpoints.get(name) ?? 0) + 1);
  }

  get steps(): number {
    return [...this.#rows.values()].reduce((sum, row) => sum + row.steps, 0);
  }

  /** Markdown, the most frequent first. */
  table(): string {
    const rows = [...this.#rows].toSorted(([, a], [, b]) => b.steps - a.steps);
    return [
      '| fault | steps | kinds of operation | done all the same | failed, and undone or settled |',
      '| --- | --- | --- | --- | --- |',
      ...rows.map(
        ([fault, { steps, operations, done, failed }]) =>
          `| ${fault} | ${steps} | ${operations.size} | ${done} | ${failed} |`,
      ),
    ].join('\n');
  }

  /** By operation: a name and how often it struck. */
  failpoints(): string {
    const struck = [...this.#failpoints].toSorted(([a], [b]) => a.localeCompare(b));
    const times = struck.reduce((sum, [, count]) => sum + count, 0);
    const list = struck.map(([name, count]) => `${name} ${count}`).join(', ');
    return `${struck.length} failpoints struck, ${times} times: ${list}`;
  }
}
