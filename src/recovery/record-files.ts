/**
 * What stands beside the layers and images, so that the catalog can be made again from them alone: `guest.json` in the
 * directory of each guest, `manifest.json` in that of each image. docs/FORMAT.md describes both for others; here is what is
 * written, and what a file must have to be taken for one.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { DRIVER_NAMES, type DriverName } from '../api/constants.ts';
import { errnoOf } from '../errors.ts';
import type { Definition } from '../guests/definition.ts';
import type { Manifest } from '../images/manifest.ts';
import type { FileIdentity } from '../storage/identity.ts';

export const GUEST_FILE = 'guest.json';
export const MANIFEST_FILE = 'manifest.json';

const Text = Type.String();
const TextOrNull = Type.Union([Type.String(), Type.Null()]);
const Version = Type.Integer({ minimum: 1 });

const LayerEntry = Type.Object({
  id: Type.String({ minLength: 1 }),
  path: Type.String({ minLength: 1 }),
  format: Type.Unsafe<'qcow2' | 'raw'>({ type: 'string', enum: ['qcow2', 'raw'] }),
  /** id of the layer that it reads through to; null when it stands on nothing of ours */
  parent: TextOrNull,
  driver: Type.Unsafe<DriverName>({ type: 'string', enum: [...DRIVER_NAMES] }),
  tree: Text,
  /** the file that the user brought */
  root: Type.Boolean(),
  sizeBytes: Type.Integer({ minimum: 0 }),
  /** what the file looked like when nobody had it for writing; null while somebody may */
  seal: Type.Union([
    Type.Object({
      inode: Text,
      sizeBytes: Text,
      modifiedNs: Text,
      header: Text,
      storedBytes: Type.Number(),
    }),
    Type.Null(),
  ]),
});

const GuestFile = Type.Object({
  format: Type.Literal(1),
  /** grows with each writing */
  version: Version,
  uuid: Text,
  name: Text,
  createdAt: Text,
  definition: Type.Unsafe<Definition>(
    Type.Object({ uuid: Text, name: Text, disks: Type.Array(Type.Object({ name: Text, path: Text })) }),
  ),
  /** which process it is, and what its present derives from */
  state: Type.Object({
    instance: TextOrNull,
    crashed: Type.Boolean(),
    frozen: Type.Boolean(),
    tpm: TextOrNull,
    currentImage: TextOrNull,
  }),
  heads: Type.Array(Type.Object({ disk: Text, layer: Text })),
  /** all that were made for this guest, and its roots; a clone's stand on those of the guest that it is a clone of */
  layers: Type.Array(LayerEntry),
  schedules: Type.Array(
    Type.Object({
      name: Text,
      spec: Type.Unknown(),
      paused: Type.Boolean(),
      createdAt: Text,
      decidedUntil: Text,
    }),
  ),
  retention: Type.Unknown(),
});
export type GuestFile = Static<typeof GuestFile>;
export type LayerEntry = Omit<Static<typeof LayerEntry>, 'seal'> & { readonly seal: FileIdentity | null };

/** What the catalog has of an image beside what it said of itself when it was taken. */
const ImageEntry = Type.Object({
  version: Version,
  state: Type.Unsafe<'ready' | 'broken'>({ type: 'string', enum: ['ready', 'broken'] }),
  /** id of the image that the guest's present came from when it was taken */
  parent: TextOrNull,
  protected: Type.Boolean(),
  verifiedAt: TextOrNull,
  verification: Type.Unknown(),
  restoredCount: Type.Integer({ minimum: 0 }),
  restoreMethod: Type.Union([
    Type.Literal('mapped'),
    Type.Literal('lazy'),
    Type.Literal('eager'),
    Type.Null(),
  ]),
});
export type ImageEntry = Static<typeof ImageEntry>;

const ImageFile = Type.Object({
  version: Type.Literal(2),
  id: Text,
  name: Text,
  guest: Type.Object({ uuid: Text, name: Text }),
  createdAt: Text,
  live: Type.Boolean(),
  description: Text,
  memoryBytes: Type.Integer({ minimum: 1 }),
  memoryFile: Type.Object({ name: Text, offset: Type.Integer({ minimum: 0 }) }),
  definition: Type.Object({ machine: Text }),
  disks: Type.Array(Type.Object({ name: Text, layer: Type.Object({ id: Text, path: Text, format: Text }) })),
  record: ImageEntry,
});
/** The image's own document, with its disks as they are called now. */
export type ImageFile = Omit<Manifest, 'version'> & { readonly version: 2; readonly record: ImageEntry };

export type Read<T> = { readonly file: T } | { readonly whyNot: string };

export async function readGuestFile(directory: string): Promise<Read<GuestFile>> {
  const read = await readJson(join(directory, GUEST_FILE));
  if ('whyNot' in read) return read;
  if (!Value.Check(GuestFile, read.file)) return { whyNot: `${GUEST_FILE} ${flaw(GuestFile, read.file)}` };
  return { file: read.file };
}

export async function readImageFile(directory: string): Promise<Read<ImageFile>> {
  const read = await readJson(join(directory, MANIFEST_FILE));
  if ('whyNot' in read) return read;
  if (!Value.Check(ImageFile, read.file)) return { whyNot: `${MANIFEST_FILE} ${flaw(ImageFile, read.file)}` };
  // What isn't checked is what Stasis itself wrote into the same document.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return { file: read.file as unknown as ImageFile };
}

async function readJson(path: string): Promise<Read<unknown>> {
  const name = path.slice(path.lastIndexOf('/') + 1);
  try {
    return { file: JSON.parse(await readFile(path, 'utf8')) };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return { whyNot: `it has no ${name}` };
    if (error instanceof SyntaxError) return { whyNot: `${name} is no JSON` };
    return { whyNot: `${name} can not be read (${errnoOf(error) ?? 'unknown'})` };
  }
}

function flaw(schema: Type.TSchema, value: unknown): string {
  const [error] = Value.Errors(schema, value);
  return `is not as it should be: ${error?.instancePath ?? ''} ${error?.message ?? ''}`;
}
