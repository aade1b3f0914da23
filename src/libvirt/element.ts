/**
 * An element of a domain whose every part must be *taken*. Whoever reads an attribute, a text or a child takes it by
 * that; what nobody took is found at the end and reported. So nothing can be dropped in silence: a value that isn't
 * understood is not taken either.
 */
import { isHarmless } from './harmless.ts';
import type { XmlNode } from './xml.ts';

/** Something about one line of the XML. */
export interface Finding {
  readonly line: number;
  /** such as `<driver> iothread="1"` */
  readonly what: string;
  readonly message: string;
}

export class Element {
  readonly name: string;
  readonly line: number;
  readonly #node: XmlNode;
  readonly #path: string;
  readonly #children: readonly Element[];
  readonly #takenAttributes = new Set<string>();
  #isTaken = false;
  #isTextTaken = false;

  /** @param path names of the elements that it is in, and its own: `domain/devices/disk` */
  constructor(node: XmlNode, path = node.name) {
    this.#node = node;
    this.#path = path;
    this.name = node.name;
    this.line = node.line;
    this.#children = node.children.map((child) => new Element(child, `${path}/${child.name}`));
  }

  /** Takes an attribute. */
  attribute(name: string): string | undefined {
    const value = this.#node.attributes.get(name);
    if (value !== undefined) this.#takenAttributes.add(name);
    return value;
  }

  /** Takes an attribute if its value is one of those that are understood. @returns what that value means */
  choice<T>(name: string, meanings: Readonly<Record<string, T>>): T | undefined {
    const value = this.#node.attributes.get(name);
    if (value === undefined || !Object.hasOwn(meanings, value)) return undefined;
    this.#takenAttributes.add(name);
    return meanings[value];
  }

  /** Takes an attribute that is `on`/`yes` or `off`/`no`. */
  flag(name: string): boolean | undefined {
    return this.choice(name, { on: true, yes: true, off: false, no: false });
  }

  /** Takes an attribute if it is a number, decimal or with 0x. */
  number(name: string): number | undefined {
    const value = Number(this.#node.attributes.get(name) ?? 'none');
    if (Number.isNaN(value)) return undefined;
    this.#takenAttributes.add(name);
    return value;
  }

  /** Looks at an attribute without taking it. */
  peek(name: string): string | undefined {
    return this.#node.attributes.get(name);
  }

  /** Takes the text. */
  text(): string {
    this.#isTextTaken = true;
    return this.#node.text;
  }

  /** Takes the first child of this name. */
  child(name: string): Element | undefined {
    const found = this.#children.find((child) => child.name === name);
    return found?.take();
  }

  /** The children of this name, none of them taken. */
  children(name?: string): readonly Element[] {
    return this.#children.filter((child) => name === undefined || child.name === name);
  }

  /** This element is understood; its parts still have to be. */
  take(): this {
    this.#isTaken = true;
    return this;
  }

  /** This element and all in it is dealt with. */
  takeAll(): void {
    this.take();
    this.#isTextTaken = true;
    for (const name of this.#node.attributes.keys()) this.#takenAttributes.add(name);
    for (const child of this.#children) child.takeAll();
  }

  finding(message: string, attribute?: string): Finding {
    const what =
      attribute === undefined ? `<${this.name}>` : `<${this.name}> ${attribute}="${this.peek(attribute)}"`;
    return { line: this.line, what, message };
  }

  /** What nobody took, except what is known to mean nothing here. */
  leftovers(): Finding[] {
    if (isHarmless(this.#path)) return [];
    if (!this.#isTaken) return [this.finding('is not supported')];
    const attributes = [...this.#node.attributes.keys()]
      .filter((name) => !this.#takenAttributes.has(name) && !isHarmless(`${this.#path}/@${name}`))
      .map((name) => this.finding('is not supported', name));
    const text =
      this.#node.text === '' || this.#isTextTaken
        ? []
        : [{ line: this.line, what: `<${this.name}>${this.#node.text}`, message: 'is not supported' }];
    return [...attributes, ...text, ...this.#children.flatMap((child) => child.leftovers())];
  }
}
