/**
 * Disks that are part of a machine and not of its images. Read-only ones, CD-ROMs most of all, hold still by themselves:
 * the image remembers which medium it was, by looks and by checksum, and is restored only with the same. Those
 * that a definition excludes (`capture: false`) are used as they are, and who restores is told.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { findChecksum, keepChecksum } from '../catalog/checksums.ts';
import { StasisError } from '../errors.ts';
import type { Definition } from '../guests/definition.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import { throwIfAborted } from '../qemu/wait.ts';
import { describeChange, provesContent, readIdentity, type FileIdentity } from '../storage/identity.ts';

export interface Medium {
  readonly disk: string;
  readonly path: string;
  /** read-only: the same medium must be there when the image is restored */
  readonly kind: 'read-only' | 'excluded';
  readonly identity: FileIdentity | null;
  /** of the whole file, hexadecimal */
  readonly sha256: string | null;
}

/**
 * What the image will say of the disks that it doesn't hold. A medium that was never seen before is read to its end, so
 * this comes before the guest is paused.
 * @throws StasisError `disk-missing`, `disk-changed` when somebody writes to a medium right now, `cancelled`
 */
export async function recordMedia(
  host: Host,
  definition: Definition,
  signal: AbortSignal,
): Promise<readonly Medium[]> {
  const media: Medium[] = [];
  for (const { name: disk, path, readonly, capture } of definition.disks) {
    if (readonly) media.push({ disk, path, kind: 'read-only', ...(await contentOf(host, path, signal)) });
    else if (capture === false) media.push({ disk, path, kind: 'excluded', identity: null, sha256: null });
  }
  return media;
}

/**
 * Before an image is loaded: its read-only media are what they were, at least by content; of excluded disks it is said that
 * they aren't.
 * @throws StasisError `disk-missing`, `disk-changed` naming the medium and what is different; `cancelled`
 */
export async function checkMedia(
  host: Host,
  media: readonly Medium[],
  operation: OperationHandle,
): Promise<void> {
  for (const medium of media) {
    if (medium.kind === 'read-only') await checkMedium(host, medium, operation.signal);
    else
      await operation.warn(
        `disk ${medium.disk} (${medium.path}) is no part of the image: the guest finds it as it is now, and not as it remembers it`,
      );
  }
}

/** @throws StasisError `disk-in-use`: what no image holds can't be had by two guests that write to it */
export function refuseExcluded(media: readonly Medium[], guest: string): void {
  const excluded = media.find(({ kind }) => kind === 'excluded');
  if (excluded === undefined) return;
  const { disk, path } = excluded;
  throw new StasisError(
    'disk-in-use',
    `disk ${disk} (${path}) is no part of the image and belongs to guest ${guest}: a second guest can't write to it too`,
    { details: { disk, path } },
  );
}

/** @throws StasisError `disk-missing`, `disk-changed`, `cancelled` */
export async function checkMedium(host: Host, medium: Medium, signal: AbortSignal): Promise<void> {
  const { disk, path, identity, sha256 } = medium;
  const looks = await readIdentity(path);
  const change = identity === null ? undefined : describeChange(identity, looks);
  if (change === undefined && provesContent(looks)) return;
  const now = await contentOf(host, path, signal);
  if (now.sha256 === sha256) return;
  throw new StasisError(
    'disk-changed',
    `disk ${disk}: ${path} is not the medium that was in the guest when it was saved (${change ?? 'its content differs'}); put that one back, its SHA-256 is ${sha256}`,
    { details: { disk, path, change: change ?? null, sha256, sha256Now: now.sha256 } },
  );
}

async function contentOf(
  host: Host,
  path: string,
  signal: AbortSignal,
): Promise<{ identity: FileIdentity; sha256: string }> {
  const identity = await readIdentity(path);
  const key = JSON.stringify({ ...identity, storedBytes: undefined });
  const known = provesContent(identity) ? await findChecksum(host.catalog, path, key) : undefined;
  if (known !== undefined) return { identity, sha256: known };
  const sha256 = await readToTheEnd(path, signal);
  const change = describeChange(identity, await readIdentity(path));
  if (change !== undefined)
    throw new StasisError(
      'disk-changed',
      `${path} changes while it is read (${change}): a read-only medium must not`,
      {
        details: { path, change },
      },
    );
  await keepChecksum(host.catalog, { path, identity: key, sha256 });
  return { identity, sha256 };
}

async function readToTheEnd(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    throwIfAborted(signal, `reading ${path}`);
    hash.update(chunk);
  }
  return hash.digest('hex');
}
