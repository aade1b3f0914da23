/** What the reader of a domain knows beside it, and what it has to say. */
import type { Element, Finding } from './element.ts';

export interface DomainOptions {
  /** the bridge behind one of libvirt's networks, where that is known */
  readonly bridges?: ReadonlyMap<string, string>;
  /** names of devices that the guest's QEMU has not got, as the daemon has told them */
  readonly missing?: ReadonlySet<string>;
  /** whether a file is on the guest's host; without it all are taken to be */
  readonly hasFile?: (path: string) => boolean;
}

export class Context {
  readonly options: DomainOptions;
  /** what is not supported */
  readonly problems: Finding[] = [];
  /** what is different from libvirt, though supported */
  readonly notes: Finding[] = [];

  constructor(options: DomainOptions) {
    this.options = options;
  }

  problem(element: Element, message: string, attribute?: string): void {
    this.problems.push(element.finding(message, attribute));
  }

  note(element: Element, message: string): void {
    this.notes.push(element.finding(message));
  }

  isMissing(...types: readonly string[]): boolean {
    return types.some((type) => this.options.missing?.has(type) === true);
  }
}
