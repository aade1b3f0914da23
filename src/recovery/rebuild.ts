/**
 * Makes the catalog again from what stands beside layers and images, for a home without a daemon. Nothing is thrown away: the
 * catalog that was there, and every file that comes to nothing, keep their content under another name.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readlink, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { sql, type Insertable } from 'kysely';
import {
  checkCatalog,
  copyCatalog,
  openCatalog,
  type Catalog,
  type CatalogDatabase,
} from '../catalog/database.ts';
import { insertEvent } from '../catalog/events.ts';
import { insertLayer, insertPin, setHead } from '../catalog/layers.ts';
import { outdateRecord } from '../catalog/records.ts';
import { setRetention } from '../catalog/retention.ts';
import { insertSchedule } from '../catalog/schedules.ts';
import type { ImageTable } from '../catalog/schema.ts';
import { StasisError, errnoOf } from '../errors.ts';
import type { Manifest } from '../images/manifest.ts';
import { catalogFile, type Paths } from '../paths.ts';
import { findQemu } from '../qemu/build/binary.ts';
import { ImageTool } from '../qemu/block/image-tool.ts';
import { allDrivers } from '../storage/drivers.ts';
import { syncFile, syncPath } from '../storage/durable.ts';
import { layerRecord } from './found-layers.ts';
import { takeInventory, type FoundGuest, type FoundImage, type Inventory } from './inventory.ts';
import { putInOrder } from './living-guests.ts';
import { whyOutdated } from './outdated.ts';
import { GUEST_FILE } from './record-files.ts';

export interface RebuildOptions {
  readonly paths: Paths;
  /** only say what would be */
  readonly dryRun: boolean;
  /** also when the catalog that is there is healthy */
  readonly replace: boolean;
}

export interface RebuiltGuest {
  readonly name: string;
  readonly uuid: string;
  readonly isRunning: boolean;
  readonly images: readonly {
    readonly name: string;
    readonly state: 'ready' | 'broken';
    readonly damage: string | null;
  }[];
  readonly notes: readonly string[];
}

export interface RebuildReport {
  readonly catalog: string;
  readonly dryRun: boolean;
  /** what was wrong with the catalog that was there; null when it was healthy */
  readonly before: string | null;
  /** where it is now; null when there was none, or nothing was done */
  readonly previous: string | null;
  /** its operations, events, audit trail, credentials … are still there */
  readonly keepsHistory: boolean;
  readonly guests: readonly RebuiltGuest[];
  readonly leftOut: readonly {
    readonly path: string;
    readonly reason: string;
    readonly movedTo: string | null;
  }[];
  readonly notes: readonly string[];
}

/**
 * @throws StasisError `busy` while a daemon has the catalog; `invalid-state` when it is healthy; `qemu-missing`, `no-space`,
 *   `storage-failed`: then nothing has changed
 */
export async function rebuildCatalog({ paths, dryRun, replace }: RebuildOptions): Promise<RebuildReport> {
  const path = catalogFile(paths);
  const stamp = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
  await refuseWhileOpen(path);
  const draft = `${path}.rebuilt`;
  await removeCatalog(draft);
  try {
    const { finding, keepsHistory } = await examine(path, paths.data, async (catalog, isHealthy) => {
      if (dryRun) return;
      if (isHealthy && !replace) throw healthy(path);
      await copyCatalog(catalog, draft);
    });
    const tools = await layerTools();
    const inventory = await takeInventory(paths, tools);
    const moves = inventory.leftOut.map(({ path: from, reason }) => ({
      ...{ path: from, reason },
      // The record of a guest goes on in that guest's directory.
      movedTo:
        basename(from) === GUEST_FILE
          ? `${from}.left-out-${stamp}`
          : join(`${dirname(from)}.left-out-${stamp}`, basename(from)),
    }));
    let previous: string | null = null;
    if (!dryRun) {
      await fill(draft, inventory);
      previous = await putInPlace(draft, path, stamp);
      for (const { path: from, movedTo } of moves) await moveAside(from, movedTo);
      for (const { living } of inventory.guests)
        if (living !== undefined) await putInOrder(paths.run, living);
    }
    return {
      ...{ catalog: path, dryRun, before: finding, previous, keepsHistory },
      guests: inventory.guests.map(report),
      leftOut: moves.map((move) => ({ ...move, movedTo: dryRun ? null : move.movedTo })),
      notes: inventory.notes,
    };
  } finally {
    await removeCatalog(draft);
  }
}

function report({ file, living, images, notes }: FoundGuest): RebuiltGuest {
  return {
    ...{ name: file.name, uuid: file.uuid, isRunning: living !== undefined, notes },
    images: images.map(({ file: { name }, state, damage }) => ({ name, state, damage: damage ?? null })),
  };
}

async function layerTools() {
  const imageTool = new ImageTool((await findQemu()).imageToolPath);
  return { imageTool, drivers: allDrivers(imageTool) };
}

/** Also a daemon whose catalog was removed goes on with it. @throws StasisError `busy` */
async function refuseWhileOpen(path: string): Promise<void> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    if (!(await hasOpen(pid, path))) continue;
    throw new StasisError(
      'busy',
      `a Stasis daemon (process ${pid}) has the catalog ${path}; end it first: \`systemctl stop stasis.service stasis.socket\` where it is a service, else \`kill ${pid}\`. Guests run on meanwhile`,
      { details: { pid: Number(pid) } },
    );
  }
}

async function hasOpen(pid: string, path: string): Promise<boolean> {
  try {
    for (const descriptor of await readdir(`/proc/${pid}/fd`)) {
      const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '');
      if (target === path || target === `${path} (deleted)`) return true;
    }
    return false;
  } catch (error) {
    // It has ended, or is another user's: then so are its files.
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) return false;
    throw error;
  }
}

interface Examined {
  /** what is wrong with it; null for a healthy one */
  readonly finding: string | null;
  readonly keepsHistory: boolean;
}

/** Looks at the catalog that is there. @param onReadable gets it when it can be read to the end */
async function examine(
  path: string,
  data: string,
  onReadable: (catalog: CatalogDatabase, isHealthy: boolean) => Promise<void>,
): Promise<Examined> {
  if (!existsSync(path)) return { finding: 'there is none', keepsHistory: false };
  try {
    const catalog = await openCatalog(path);
    try {
      await checkCatalog(catalog);
      const finding = (await whyOutdated(catalog, data)) ?? null;
      await onReadable(catalog, finding === null);
      return { finding, keepsHistory: true };
    } finally {
      await catalog.destroy();
    }
  } catch (error) {
    const failure = StasisError.from(error);
    if (failure.code !== 'catalog-damaged') throw failure;
    return { finding: failure.message, keepsHistory: false };
  }
}

function healthy(path: string): StasisError {
  return new StasisError(
    'invalid-state',
    `the catalog ${path} is healthy: there is nothing to make again. With --replace it is made from what stands beside the images all the same, and the old one kept under another name`,
  );
}

async function fill(path: string, inventory: Inventory): Promise<void> {
  const catalog = await openCatalog(path);
  try {
    await catalog.transaction().execute(async (transaction) => {
      await forgetAll(transaction);
      await insertGuests(transaction, inventory);
      for (const { file, images } of inventory.guests) {
        await outdateRecord(transaction, { kind: 'guest', id: file.uuid, version: file.version });
        for (const image of images)
          await outdateRecord(transaction, {
            kind: 'image',
            id: image.file.id,
            version: image.file.record.version,
          });
      }
      const images = inventory.guests.reduce((sum, guest) => sum + guest.images.length, 0);
      await insertEvent(transaction, {
        ...{ at: new Date().toISOString(), type: 'daemon', action: 'rebuilt' },
        ...{ guest: null, image: null, operation: null },
        message: `the catalog was made again from the records of ${inventory.guests.length} guests and ${images} images`,
      });
    });
  } finally {
    await catalog.destroy();
  }
}

/** What the records tell takes the place of what the old catalog says of it; what was under way then is nobody's any more. */
async function forgetAll(catalog: Catalog): Promise<void> {
  await sql`pragma defer_foreign_keys = on`.execute(catalog);
  for (const table of ['pins', 'heads', 'images', 'fileSums', 'layers', 'guests', 'records'] as const)
    await catalog.deleteFrom(table).execute();
  const error = JSON.stringify(
    new StasisError('interrupted', 'the catalog was made again while it was under way'),
  );
  await catalog
    .updateTable('operations')
    .set({ state: 'failed', settled: 1, error, finishedAt: new Date().toISOString() })
    .where('settled', '=', 0)
    .execute();
}

async function insertGuests(catalog: Catalog, { guests, layers, heads }: Inventory): Promise<void> {
  for (const layer of layers.all()) await insertLayer(catalog, layerRecord(layer, heads));
  const images = new Set(guests.flatMap((guest) => guest.images.map(({ file }) => file.id)));
  const known = (id: string | null) => (id !== null && images.has(id) ? id : null);
  for (const { file, instance, tpm, heads: own, images: found } of guests) {
    const { uuid, name, createdAt, definition, state, schedules, retention } = file;
    await catalog
      .insertInto('guests')
      .values({
        ...{ uuid, name, createdAt, instance, tpm, stateReason: null },
        definition: JSON.stringify(definition),
        currentImage: known(state.currentImage),
        crashed: state.crashed && instance === null ? 1 : 0,
        frozen: state.frozen ? 1 : 0,
      })
      .execute();
    for (const { disk, layer } of own) await setHead(catalog, uuid, disk, layer);
    for (const { spec, paused, ...schedule } of schedules)
      await insertSchedule(catalog, {
        ...{ ...schedule, guest: uuid, spec: JSON.stringify(spec), paused: paused ? 1 : 0 },
      });
    if (retention !== null) await setRetention(catalog, uuid, JSON.stringify(retention));
    for (const image of found) {
      await catalog
        .insertInto('images')
        .values(imageRow(uuid, image, known))
        .execute();
      for (const { name: disk, layer } of image.file.disks) {
        const pinned = layers.find(layer.id);
        if (pinned !== undefined) await insertPin(catalog, image.file.id, disk, pinned.id);
      }
    }
  }
}

function imageRow(
  guest: string,
  { file, state, damage }: FoundImage,
  known: (id: string | null) => string | null,
): Insertable<ImageTable> {
  const { record, version: _, ...said } = file;
  const manifest: Manifest = { ...said, version: 1 };
  const verification = damage === undefined ? record.verification : { damage };
  return {
    ...{
      id: file.id,
      guest,
      name: file.name,
      state,
      parent: known(record.parent),
      createdAt: file.createdAt,
    },
    live: file.live ? 1 : 0,
    memoryBytes: file.memoryBytes,
    description: file.description,
    verifiedAt: damage === undefined ? record.verifiedAt : null,
    verification: verification === null ? null : JSON.stringify(verification),
    restoredCount: record.restoredCount,
    restoreMethod: record.restoreMethod,
    protected: record.protected ? 1 : 0,
    schedule: file.schedule ?? null,
    manifest: JSON.stringify(manifest),
  };
}

/** @returns the new name of the catalog that was there. A crash in between leaves none, which the next daemon is told of. */
async function putInPlace(draft: string, path: string, stamp: string): Promise<string | null> {
  await syncFile(draft);
  const previous = existsSync(path) ? `${path}.before-${stamp}` : null;
  if (previous !== null)
    for (const suffix of CATALOG_SUFFIXES)
      if (existsSync(path + suffix)) await rename(path + suffix, previous + suffix);
  await rename(draft, path);
  await syncPath(dirname(path));
  return previous;
}

/** The file itself and what SQLite has beside it while it is open, or after a crash. */
const CATALOG_SUFFIXES = ['', '-wal', '-shm'] as const;

async function removeCatalog(path: string): Promise<void> {
  for (const suffix of CATALOG_SUFFIXES) await rm(path + suffix, { force: true });
}

async function moveAside(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true, mode: 0o700 });
  await rename(from, to);
}
