/** The inputs that are kept: examples of each format, what reached something new, and what once was a finding. */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../../src/errors.ts';

export interface Entry {
  /** its file; what a campaign kept is named by its hash */
  readonly name: string;
  readonly bytes: Buffer;
}

const FOUND = /^found-/;

export function readCorpus(target: string): Entry[] {
  const directory = directoryOf(target);
  return namesIn(directory).map((name) => ({ name, bytes: readFileSync(join(directory, name)) }));
}

/** Keeps what a campaign found, in place of what one before it did. Examples and findings stay. */
export function replaceFound(target: string, inputs: readonly Buffer[]): void {
  const directory = directoryOf(target);
  for (const name of namesIn(directory)) if (FOUND.test(name)) rmSync(join(directory, name));
  for (const input of inputs) keep(target, 'found', input);
}

/** @returns its path */
export function keep(target: string, kind: 'found' | 'crash', input: Buffer): string {
  const directory = directoryOf(target);
  mkdirSync(directory, { recursive: true });
  const hash = createHash('sha256').update(input).digest('hex').slice(0, 10);
  const path = join(directory, `${kind}-${hash}`);
  writeFileSync(path, input);
  return path;
}

function directoryOf(target: string): string {
  return join(import.meta.dirname, 'corpus', target);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).toSorted();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
