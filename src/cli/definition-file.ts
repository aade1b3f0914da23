/** The file of `stasis define`: read and parsed here, judged by the daemon. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { StasisError, messageOf } from '../errors.ts';
import { parseYaml } from '../yaml.ts';

/** No definition written by a person comes near it; a disk image given by mistake does. */
const LARGEST_FILE_BYTES = 1024 * 1024;

export interface DefinitionFile {
  readonly text: string;
  /** how messages call it */
  readonly source: string;
  /** absolute directory that relative paths in the definition are relative to */
  readonly directory: string;
}

/**
 * @param file path, or `-` for stdin, whose paths are relative to the working directory
 * @throws `invalid-request` when it can't be read; `invalid-definition` when it is too large
 */
export async function readDefinitionFile(file: string): Promise<DefinitionFile> {
  const text = await readText(file);
  const directory = file === '-' ? process.cwd() : dirname(resolve(file));
  return { text, source: file === '-' ? 'stdin' : file, directory };
}

/** Whether a text is XML; YAML and JSON can't begin like that. */
export function isXml(text: string): boolean {
  return text.trimStart().startsWith('<');
}

async function readText(file: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = file === '-' ? await buffer(process.stdin) : await readFile(file);
  } catch (error) {
    throw new StasisError('invalid-request', `can't read the definition: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (bytes.length > LARGEST_FILE_BYTES) {
    throw new StasisError('invalid-definition', `${file} is too large for a guest definition (over 1 MiB)`);
  }
  return bytes.toString('utf8');
}

/**
 * A definition in YAML or JSON.
 * @param source how the messages call the text
 * @throws `invalid-definition` with line and column when it is neither
 */
export function parseDefinition(text: string, source: string): unknown {
  return parseYaml(text, source, 'invalid-definition');
}
