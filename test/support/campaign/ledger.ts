/** What was promised: which images must be there, and what each must hold. */
import type { Content } from '../rules.ts';

export class Ledger {
  /** an interrupted save may or may not have replaced the image before it */
  readonly #held = new Map<string, Content[]>();
  readonly #certain = new Set<string>();

  /** Images that must be listed. */
  get certain(): readonly string[] {
    return [...this.#certain];
  }

  /** What an image of that name may hold; none when there can't be one. */
  held(image: string): readonly Content[] {
    return this.#held.get(image) ?? [];
  }

  /** Something begins that may make this image, in place of one that is there. */
  mayBecome(image: string, content: Content): void {
    this.#held.set(image, [...this.held(image), content]);
  }

  /** It was acknowledged. */
  became(image: string, content: Content): void {
    this.#held.set(image, [content]);
    this.#certain.add(image);
  }

  /** Something begins that may remove it. */
  mayGo(image: string): void {
    this.#certain.delete(image);
  }

  /** What an interrupted operation came to is what is there now. */
  settle(listed: readonly string[]): void {
    for (const image of listed) this.#certain.add(image);
    for (const image of this.#held.keys()) if (!listed.includes(image)) this.#held.delete(image);
  }
}
