/**
 * XML of others, read safely: no file and no network is touched, no entity is expanded, and what comes out is plain
 * data with line numbers.
 */
import { StasisError } from '../errors.ts';

export interface XmlNode {
  /** with its prefix, as in `qemu:arg` */
  readonly name: string;
  readonly line: number;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlNode[];
  /** its own text, without white space around it */
  readonly text: string;
}

/** No domain comes near it. */
const LARGEST_TEXT = 1024 * 1024;

/** @throws StasisError `invalid-definition` with the line, when it is no XML or has a document type */
export async function parseXml(text: string, source: string): Promise<XmlNode> {
  if (text.length > LARGEST_TEXT)
    throw new StasisError('invalid-definition', `${source} is too large for a domain (over 1 MiB)`);
  // A document type is what entities come from, and libvirt writes none: it is refused before anybody looks into it.
  if (/<!DOCTYPE/i.test(text))
    throw new StasisError('invalid-definition', `${source} has a document type, which a domain has not`);
  const { ParseOption, XmlDocument, XmlElement, XmlParseError, XmlText, XmlCData } =
    await import('libxml2-wasm'); // large, and only XML needs it

  const read = (element: InstanceType<typeof XmlElement>): XmlNode => {
    const children: XmlNode[] = [];
    let own = '';
    for (let node = element.firstChild; node !== null; node = node.next) {
      if (node instanceof XmlElement) children.push(read(node));
      else if (node instanceof XmlText || node instanceof XmlCData) own += node.content;
    }
    return {
      name: qualified(element),
      line: element.line,
      attributes: new Map(element.attrs.map((attribute) => [qualified(attribute), attribute.value])),
      children,
      text: own.trim(),
    };
  };

  try {
    using document = XmlDocument.fromString(text, {
      option: ParseOption.XML_PARSE_NONET | ParseOption.XML_PARSE_NO_XXE,
    });
    return read(document.root);
  } catch (error) {
    if (!(error instanceof XmlParseError)) throw error;
    const line = error.details[0]?.line;
    const where = line === undefined ? source : `${source}:${line}`;
    throw new StasisError('invalid-definition', `${where}: ${error.message.trim()}`, {
      cause: error,
      details: { line },
    });
  }
}

function qualified({ prefix, name }: { readonly prefix: string; readonly name: string }): string {
  return prefix === '' ? name : `${prefix}:${name}`;
}
