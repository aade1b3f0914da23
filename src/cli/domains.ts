/** Domains of libvirt's as guests: what of them is not supported or different is told by line. */
import { existsSync } from 'node:fs';
import type { Guest } from '../api/schemas.ts';
import type { NotWaiting, Outcome, Waiting } from '../client/requests.ts';
import { StasisError } from '../errors.ts';
import type { DomainOptions } from '../libvirt/context.ts';
import { readDomain, type DomainDefinition } from '../libvirt/domain.ts';
import type { Finding } from '../libvirt/element.ts';
import { describeDefined } from './guest-view.ts';
import { mutate, type MutationOptions } from './mutation.ts';
import type { Session } from './session.ts';
import { count } from './units.ts';

export interface DomainText {
  readonly text: string;
  /** how messages call it */
  readonly source: string;
}

/** What became of a domain, beside the guest. */
export interface Differences {
  /** left out, with --lenient */
  readonly unsupported: readonly Finding[];
  readonly notes: readonly Finding[];
}

export interface Translation extends Differences {
  readonly definition: DomainDefinition;
}

/**
 * @param lenient what is not supported is left out
 * @throws `invalid-definition` when it is no domain; `unsupported` naming each line that is not
 */
export async function translate(
  { text, source }: DomainText,
  lenient: boolean,
  options: DomainOptions,
): Promise<Translation> {
  const read = await readDomain(text, source, options);
  if (read.unsupported.length > 0 && !lenient) {
    throw new StasisError(
      'unsupported',
      [
        `${source}: ${count(read.unsupported.length, 'part')} of this domain not supported; remove what is named or use --lenient`,
        ...read.unsupported.map(wordsOf),
      ].join('\n'),
      { details: { unsupported: read.unsupported } },
    );
  }
  return read;
}

function wordsOf({ line, what, message }: Finding): string {
  return `line ${line}: ${what}: ${message}`;
}

/** What a person should know of it. */
export function remarksOf({ unsupported, notes }: Differences): string[] {
  return [
    ...unsupported.map((finding) => `warning: left out: ${wordsOf(finding)}`),
    ...notes.map((finding) => `note: ${wordsOf(finding)}`),
  ];
}

/**
 * Defines a domain. What the daemon's QEMU has not got is read again as missing, so that it is told by line, or
 * with `lenient` replaced.
 */
export async function define<O extends Waiting | NotWaiting>(
  { client }: Session,
  domain: DomainText,
  { lenient, ...options }: DomainOptions & { lenient: boolean },
  waiting: O,
): Promise<{ outcome: Outcome<O, Guest>; translation: Translation }> {
  const missing = new Set<string>();
  for (;;) {
    const translation = await translate(domain, lenient, {
      ...options,
      missing,
      hasFile: existsSync,
    });
    try {
      return { outcome: await client.defineGuest(translation.definition, '/', waiting), translation };
    } catch (error) {
      const type = error instanceof StasisError ? error.details?.['missing'] : undefined;
      if (typeof type !== 'string' || missing.has(type)) throw error;
      missing.add(type);
    }
  }
}

/** `stasis define` of a domain. */
export async function defineDomain(
  session: Session,
  domain: DomainText,
  options: MutationOptions & { lenient?: true },
): Promise<void> {
  let differences: Differences = { unsupported: [], notes: [] };
  await mutate<Guest>(session, options, {
    run: async (waiting) => {
      const { outcome, translation } = await define(
        session,
        domain,
        { lenient: options.lenient ?? false },
        waiting,
      );
      differences = { unsupported: translation.unsupported, notes: translation.notes };
      for (const remark of remarksOf(differences)) session.output.note(remark);
      return outcome;
    },
    document: (guest) => ({ ...guest, ...differences }),
    text: describeDefined,
  });
}
