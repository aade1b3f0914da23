/**
 * Keeps the record files beside layers and images saying what the catalog says. They are the second line: nothing is
 * acknowledged because of them, and nobody waits for them but who is about to change a file so that an older record of
 * it would be wrong (`flush`). The catalog's triggers mark what has changed, in the transaction that changes it; so no writer
 * can forget it, and what a daemon that died left unwritten the next one writes.
 */
import { rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { onRecordMarked, type Catalog, type CatalogDatabase } from '../catalog/database.ts';
import { findGuest } from '../catalog/guests.ts';
import { findImageById } from '../catalog/images.ts';
import { layersMadeFor, pinsOf, type LayerRecord } from '../catalog/layers.ts';
import {
  forgetRecord,
  markWritten,
  recordVersion,
  unwrittenRecords,
  type RecordMark,
} from '../catalog/records.ts';
import { listRetention } from '../catalog/retention.ts';
import { listSchedules } from '../catalog/schedules.ts';
import { errnoOf, messageOf } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { guestDirectory, headIds } from '../guests/disks.ts';
import type { Records } from '../guests/host.ts';
import { manifestOf } from '../images/load.ts';
import type { Log } from '../log.ts';
import type { Failpoints } from '../operations/failpoints.ts';
import { makeDirectory, syncPath, writeDurably } from '../storage/durable.ts';
import type { FileIdentity } from '../storage/identity.ts';
import { fromStored } from '../stored.ts';
import {
  GUEST_FILE,
  MANIFEST_FILE,
  type GuestFile,
  type ImageFile,
  type LayerEntry,
} from './record-files.ts';

/** So many files at most before the catalog hears of them. */
const BATCH = 64;
/** After a failure, say on a full disk, when nothing else asks for it. */
const RETRY_MS = 10_000;

export interface MirrorOptions {
  readonly catalog: CatalogDatabase;
  /** the home's directory for data */
  readonly data: string;
  readonly log: Log;
  readonly failpoints: Failpoints;
}

export class Mirror implements Records, AsyncDisposable {
  readonly #options: MirrorOptions;
  readonly #unlisten: () => void;
  /** the pass that goes on; never rejects */
  #pass: Promise<void> = Promise.resolve();
  /** the one that begins after it, and sees all that is marked until then */
  #next: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #ended = false;

  /** Begins at once with what a former daemon left unwritten. */
  constructor(options: MirrorOptions) {
    this.#options = options;
    this.#unlisten = onRecordMarked(options.catalog, () => this.#wake());
    this.#wake();
  }

  /**
   * Resolves when all that is committed stands in the files, durable.
   * @throws what keeps it from being written: `no-space`, `storage-failed`
   */
  flush(): Promise<void> {
    this.#next ??= this.#pass.then(() => {
      this.#next = undefined;
      const pass = this.#write();
      this.#pass = pass.catch(() => undefined);
      return pass;
    });
    return this.#next;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unlisten();
    this.#ended = true;
    clearTimeout(this.#retry);
    await this.#next?.catch(() => undefined);
    await this.#pass;
  }

  #wake(): void {
    if (this.#next !== undefined || this.#ended) return;
    this.flush().catch((error: unknown) => {
      this.#options.log.error({ error: messageOf(error) }, 'records could not be written beside the images');
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.#wake(), RETRY_MS).unref();
    });
  }

  /** One that can't be written keeps none of the others from it. */
  async #write(): Promise<void> {
    const { catalog } = this.#options;
    for (;;) {
      const marks = await unwrittenRecords(catalog, BATCH);
      if (marks.length === 0) return;
      const written: Written[] = [];
      const failures: unknown[] = [];
      for (const mark of marks) {
        try {
          written.push(await this.#writeOne(mark));
        } catch (error) {
          failures.push(error);
        }
      }
      await catalog.transaction().execute(async (transaction) => {
        for (const { isGone, ...mark } of written)
          await (isGone ? forgetRecord(transaction, mark) : markWritten(transaction, mark));
      });
      if (failures.length > 0) throw failures[0];
    }
  }

  async #writeOne({ kind, id }: RecordMark): Promise<Written> {
    const { catalog, data, failpoints } = this.#options;
    // One transaction, so that what is written is of one instant.
    const { version, directory, name, content } = await catalog.transaction().execute(async (transaction) => {
      const found = await (kind === 'guest' ? guestRecord(transaction, id) : imageRecord(transaction, id));
      const place = guestDirectory(data, found.guest);
      return kind === 'guest'
        ? { ...found, directory: place.root, name: GUEST_FILE }
        : { ...found, directory: join(place.images, id), name: MANIFEST_FILE };
    });
    await failpoints.reach(`records/${kind}:before`, () => Promise.resolve());
    if (content === undefined) await remove(directory, name);
    else await write(directory, name, JSON.stringify(content, null, 2));
    return { kind, id, version, isGone: content === undefined };
  }
}

type Written = RecordMark & { readonly isGone: boolean };

interface Content {
  readonly version: number;
  /** UUID of the guest in whose directory it stands; empty when nothing tells any more */
  readonly guest: string;
  /** undefined when there is nothing to tell any more */
  readonly content: object | undefined;
}

async function guestRecord(catalog: Catalog, uuid: string): Promise<Content> {
  const version = await recordVersion(catalog, 'guest', uuid);
  const guest = await findGuest(catalog, uuid);
  if (guest === undefined) return { version, guest: uuid, content: undefined };
  const retention = (await listRetention(catalog, [uuid])).get(uuid);
  const content: GuestFile = {
    format: 1,
    version,
    uuid,
    name: guest.name,
    createdAt: guest.createdAt,
    definition: storedDefinition(guest),
    state: {
      instance: guest.instance,
      crashed: guest.crashed === 1,
      frozen: guest.frozen === 1,
      tpm: guest.tpm,
      currentImage: guest.currentImage,
    },
    heads: await headIds(catalog, uuid),
    layers: (await layersMadeFor(catalog, uuid)).map(layerEntry),
    schedules: (await listSchedules(catalog, [uuid])).map(
      ({ name, spec, paused, createdAt, decidedUntil }) => ({
        ...{ name, createdAt, decidedUntil },
        spec: fromStored<unknown>(spec),
        paused: paused === 1,
      }),
    ),
    retention: retention === undefined ? null : fromStored<unknown>(retention),
  };
  return { version, guest: uuid, content };
}

function layerEntry(layer: LayerRecord): LayerEntry {
  const { id, path, format, parent, driver, tree, root, sizeBytes, identity } = layer;
  return {
    ...{ id, path, format, parent, driver, tree, root: root === 1, sizeBytes },
    seal: identity === null ? null : fromStored<FileIdentity>(identity),
  };
}

async function imageRecord(catalog: Catalog, id: string): Promise<Content> {
  const version = await recordVersion(catalog, 'image', id);
  const image = await findImageById(catalog, id);
  if (image === undefined) return { version, guest: '', content: undefined };
  // It is about to lose its files: from now on nobody shall take it for an image.
  if (image.state !== 'ready' && image.state !== 'broken')
    return { version, guest: image.guest, content: undefined };
  const manifest = manifestOf(image);
  const pins = await pinsOf(catalog, id);
  const content: ImageFile = {
    ...manifest,
    version: 2,
    disks: manifest.disks.map((disk) => {
      const layer = pins.find((pin) => pin.disk === disk.name)?.layer;
      return layer === undefined
        ? disk
        : { ...disk, layer: { id: layer.id, path: layer.path, format: layer.format } };
    }),
    record: {
      version,
      state: image.state,
      parent: image.parent,
      protected: image.protected === 1,
      verifiedAt: image.verifiedAt,
      verification: image.verification === null ? null : fromStored<unknown>(image.verification),
      restoredCount: image.restoredCount,
      restoreMethod: image.restoreMethod,
    },
  };
  return { version, guest: image.guest, content };
}

async function write(directory: string, name: string, text: string): Promise<void> {
  if (name === GUEST_FILE) await makeDirectory(directory);
  try {
    await writeDurably(join(directory, name), text);
  } catch (error) {
    // Its directory went meanwhile: so has the image, which marks it once more.
    if (name !== MANIFEST_FILE || errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** What it is of may be gone already, or be going. */
async function remove(directory: string, name: string): Promise<void> {
  await rm(join(directory, name), { force: true });
  try {
    await syncPath(directory);
    if (name === GUEST_FILE) await rmdir(directory);
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY'].includes(errnoOf(error) ?? '')) throw error;
  }
}
