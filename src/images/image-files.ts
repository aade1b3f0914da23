/**
 * The files that an image consists of and nobody writes to: its memory, and every layer of its disks' chains. What each
 * holds is known by a checksum, recorded in the catalog and, so that a copy of the image can be looked at, in its
 * manifest. A checksum of a layer counts for the seal that it had when it was read: when layers are merged, or the header of
 * one is rewritten, it is forgotten with the seal, and made anew.
 */
import { join } from 'node:path';
import { findFileSum, keepFileSum, type FileSumRecord, type SumOwner } from '../catalog/file-sums.ts';
import { findImageById, updateImage, type ImageRecord } from '../catalog/images.ts';
import { chainOf, pinsOf, type LayerRecord } from '../catalog/layers.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { FileSum } from '../storage/file-sum.ts';
import { manifestOf } from './load.ts';
import type { Manifest } from './manifest.ts';

export interface ImageFile {
  /** `memory`, or `disk root` for the layer that the image pins, `disk root 1` for the one below it … */
  readonly name: string;
  readonly path: string;
  readonly owner: SumOwner;
  /** of a layer; null when a guest may write to it, which is none of an image's then */
  readonly seal: string | null;
  readonly layer?: LayerRecord;
  readonly disk?: string;
}

function imageDirectoryOf({ paths }: Pick<Host, 'paths'>, image: ImageRecord): string {
  return join(guestDirectory(paths.data, image.guest).images, image.id);
}

/** Memory first, then disk by disk from the pinned layer down to the root. */
export async function filesOf(host: Host, image: ImageRecord): Promise<ImageFile[]> {
  const memory = {
    name: 'memory',
    path: join(imageDirectoryOf(host, image), manifestOf(image).memoryFile.name),
    owner: { image: image.id },
    seal: null,
  };
  const files: ImageFile[] = [memory];
  for (const { disk, layer: pinned } of await pinsOf(host.catalog, image.id)) {
    for (const [depth, layer] of (await chainOf(host.catalog, pinned.id)).entries()) {
      const name = depth === 0 ? `disk ${disk}` : `disk ${disk} ${depth}`;
      files.push({ name, disk, layer, path: layer.path, owner: { layer: layer.id }, seal: layer.identity });
    }
  }
  return files;
}

/** May its content be relied on not to change? */
export function isFixed({ owner, seal }: ImageFile): boolean {
  return 'image' in owner || seal !== null;
}

/** What is recorded of a file's content, if anything that still counts. */
export async function recordedSum(host: Host, file: ImageFile): Promise<FileSumRecord | undefined> {
  const record = await findFileSum(host.catalog, file.owner);
  return record?.seal === file.seal ? record : undefined;
}

/** @returns false when the file has become another since it was listed: then there is nothing to record */
export async function recordSum(host: Host, file: ImageFile, sum: FileSum): Promise<boolean> {
  const record = { ...sum, seal: file.seal, recordedAt: new Date().toISOString() };
  return host.catalog.transaction().execute((transaction) => keepFileSum(transaction, file.owner, record));
}

/** Makes an image's manifest say which checksums its files have now. What counts no more leaves it. Repeatable. */
export async function refreshManifest(host: Host, id: string): Promise<void> {
  const image = await findImageById(host.catalog, id);
  if (image === undefined || image.state === 'deleting') return;
  const manifest = manifestOf(image);
  const checksums = await checksumsOf(host, image);
  if (JSON.stringify(manifest.checksums) === JSON.stringify(checksums)) return;
  const { checksums: _, ...rest } = manifest;
  const next: Manifest = { ...rest, ...(checksums === undefined ? {} : { checksums }) };
  await updateImage(host.catalog, id, { manifest: JSON.stringify(next) });
}

async function checksumsOf(host: Host, image: ImageRecord): Promise<Manifest['checksums']> {
  let memory: { sha256: string; sizeBytes: number } | undefined;
  const layers = [];
  for (const file of await filesOf(host, image)) {
    const record = await recordedSum(host, file);
    if (record === undefined) continue;
    const { sha256, sizeBytes } = record;
    if (file.layer === undefined) memory = { sha256, sizeBytes };
    else layers.push({ disk: file.disk ?? '', id: file.layer.id, path: file.path, sizeBytes, sha256 });
  }
  if (memory === undefined && layers.length === 0) return undefined;
  return { format: 1, ...(memory === undefined ? {} : { memory }), layers };
}
