/**
 * A disk of an image as one flat file. The daemon only serves the disk: it opens no path of a client's choosing, so the
 * file is written here, by qemu-img, beside its place and under another name until it is whole.
 */
import { randomBytes } from 'node:crypto';
import { link, lstat, open, rename, rm, statfs } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { DiskExport } from '../api/schemas.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { findTool } from '../qemu/build/binary.ts';
import { ImageTool } from '../qemu/block/image-tool.ts';
import { formatBytes } from './units.ts';

export interface ExportTarget {
  readonly file: string;
  readonly format: 'qcow2' | 'raw';
  /** replace a file that is there */
  readonly force: boolean;
}

export interface ExportWork {
  readonly signal: AbortSignal;
  /** called with 0 … 1 */
  readonly onProgress: (done: number) => void;
}

/** What was written. */
export interface ExportedFile {
  readonly guest: string;
  readonly image: string;
  readonly disk: string;
  readonly file: string;
  readonly format: string;
  readonly sizeBytes: number;
  readonly storedBytes: number;
}

/** Asked before anything is opened. @throws StasisError `invalid-request` when the file is there, or is none */
export async function refuseExisting({ file, force }: ExportTarget): Promise<void> {
  const there = await lstat(file).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (there === undefined) return;
  if (!there.isFile())
    throw new StasisError('invalid-request', `${file} is no ordinary file; name one that is not there yet`);
  if (!force) throw existsAlready(file);
}

/**
 * Writes the served disk to a file: holes where it is empty, durable and under its name only when it is whole.
 * @throws StasisError `no-space` before anything is written; `cancelled`, `storage-failed`: then nothing is left
 */
export async function writeExport(
  { uri, guest, image, disk }: DiskExport,
  target: ExportTarget,
  { signal, onProgress }: ExportWork,
): Promise<ExportedFile> {
  const file = resolve(target.file);
  const tool = new ImageTool(await findTool('qemu-img'));
  await refuseWithoutRoom(tool, uri, file);
  const draft = join(dirname(file), `.${basename(file)}.${randomBytes(4).toString('hex')}.part`);
  try {
    const copy = { from: uri, fromFormat: 'raw', to: draft, toFormat: target.format } as const;
    await tool.convert(copy, { signal, onProgress });
    await syncFile(draft);
    await (target.force ? rename(draft, file) : moveWithoutReplacing(draft, file));
    await syncFile(dirname(file));
  } finally {
    await rm(draft, { force: true });
  }
  const info = await tool.info(file, { format: target.format });
  const sizeBytes = info['virtual-size'];
  const storedBytes = info['actual-size'] ?? 0;
  return { guest, image, disk, file, format: target.format, sizeBytes, storedBytes };
}

/** What is in use of the disk is known without reading it. */
async function refuseWithoutRoom(tool: ImageTool, uri: string, file: string): Promise<void> {
  const { requiredBytes: neededBytes } = await tool.measure(uri, 'raw', 'qcow2');
  const { bavail, bsize } = await statfs(dirname(file));
  const freeBytes = bavail * bsize;
  if (neededBytes <= freeBytes) return;
  throw new StasisError(
    'no-space',
    `the disk needs ${formatBytes(neededBytes)} and ${dirname(file)} has ${formatBytes(freeBytes)} free`,
    { details: { neededBytes, freeBytes, path: dirname(file) } },
  );
}

async function moveWithoutReplacing(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw existsAlready(to);
    if (!['EPERM', 'EOPNOTSUPP', 'ENOSYS'].includes(errnoOf(error) ?? '')) throw error;
    // exFAT and others have no links.
    await refuseExisting({ file: to, format: 'raw', force: false });
    await rename(from, to);
  }
}

async function syncFile(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}

function existsAlready(file: string): StasisError {
  return new StasisError('invalid-request', `${file} is there already; choose another name, or give --force`);
}
