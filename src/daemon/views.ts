/** Records as clients see them. Lists are made with a few queries, however long they are. */
import { join } from 'node:path';
import type { Guest, Image, Operation, Outcome } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import { findImage, imageNames, listImages, type ImageRecord } from '../catalog/images.ts';
import { pinnedLayers, type PinnedLayer } from '../catalog/layers.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import type { ErrorBody } from '../errors.ts';
import { policyIn } from '../guests/policy.ts';
import { storedRetention } from '../guests/retention.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { Run } from '../guests/supervisor.ts';
import { imageGains } from '../images/gains.ts';
import type { Manifest } from '../images/manifest.ts';
import { verificationOf } from '../images/verification.ts';
import type { Scrubber } from '../policy/scrub.ts';
import type { OperationEngine } from '../operations/engine.ts';
import type { LiveOperation, Step } from '../operations/operation.ts';
import type { AuditTrail } from '../operations/audit-trail.ts';
import type { Backups } from './backups.ts';
import { exportView } from './disk-view.ts';
import { guestParts, type GuestParts } from './guest-parts.ts';
import { scheduleView } from './schedule-view.ts';
import { guestState, runsAround } from './guest-state.ts';
import type { Gate } from './gate.ts';
import type { Health } from './health.ts';
import type { Metrics } from './metrics.ts';
import type { RemoteAccess } from './remote.ts';
import type { Repeats } from './repeats.ts';
import { fromStored } from '../stored.ts';

export interface ViewContext {
  readonly host: Host;
  readonly engine: OperationEngine;
  readonly audit: AuditTrail;
  readonly gate: Gate;
  readonly repeats: Repeats;
}

export interface DaemonContext extends ViewContext {
  readonly startedAt: string;
  readonly scrubber: Scrubber | null;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly remote: RemoteAccess;
  readonly backups: Backups;
}

/** Of these guests as they are now, as far as they are still there. */
export async function guestViews(
  context: ViewContext,
  guests: readonly Pick<GuestRecord, 'uuid'>[],
): Promise<Guest[]> {
  const uuids = guests.map(({ uuid }) => uuid);
  const runOf = runsAround(context.host.supervisor, uuids);
  const parts = await guestParts(context.host, uuids);
  return uuids.flatMap((uuid) => {
    const known = parts.get(uuid);
    return known === undefined ? [] : [viewOf(context, known, runOf(known.record))];
  });
}

function viewOf({ host, engine }: ViewContext, parts: GuestParts, run: Run | undefined): Guest {
  const { record, definition, images } = parts;
  const process = host.supervisor.find(record.uuid);
  const operation = (engine.holderOf(record.uuid) ?? engine.holderOf(record.name))?.record;
  return {
    name: record.name,
    uuid: record.uuid,
    state: guestState(record, run, operation),
    memoryBytes: definition.memoryBytes,
    cpus: definition.cpus,
    disks: definition.disks.map((disk) => {
      const head = parts.heads.find((candidate) => candidate.disk === disk.name);
      const { name, path, format, bus, readonly } = disk;
      return {
        name,
        path,
        format,
        bus,
        readonly,
        driver: head === undefined ? null : (disk.driver ?? 'overlay'),
        sizeBytes: head?.sizeBytes ?? 0,
        layers: head?.layers ?? 0,
        head: head?.path ?? path,
      };
    }),
    images: images?.count ?? 0,
    lastImage: images?.lastName ?? null,
    lastImageAt: images?.lastAt ?? null,
    currentImage: parts.currentImage,
    policy: policyIn(host, definition),
    schedules: parts.schedules.map(scheduleView),
    retention: storedRetention(parts.retention),
    labels: [...(definition.labels ?? [])],
    machine: definition.machine,
    cpu: definition.cpu,
    accelerator: definition.accelerator,
    qemu: {
      build: definition.qemu.build ?? null,
      version: process?.qmp.versionText ?? null,
    },
    pid: process?.pid ?? null,
    operation: operation?.id ?? null,
    createdAt: record.createdAt,
    stateReason:
      run?.reason ?? record.stateReason ?? (operation === undefined ? frozenReason(record, run) : null),
    definition,
  };
}

function frozenReason({ frozen }: GuestRecord, run: Run | undefined): string | null {
  if (frozen === 0 || run === undefined) return null;
  return run.state === 'paused'
    ? 'its file systems are frozen, and thawed when it is resumed'
    : 'its file systems may be frozen: its agent has not answered that they are thawed';
}

/** All images of these guests and of no others. */
export async function imagesOf(context: ViewContext, guests: readonly GuestRecord[]): Promise<Image[]> {
  const uuids = new Set(guests.map(({ uuid }) => uuid));
  const images = await listImages(context.host.catalog);
  return imageViews(
    context.host,
    guests,
    images.filter(({ guest }) => uuids.has(guest)),
  );
}

export async function imageViews(
  host: Host,
  guests: readonly GuestRecord[],
  records: readonly ImageRecord[],
): Promise<Image[]> {
  const byUuid = new Map(guests.map((guest) => [guest.uuid, guest]));
  const uuids = [...byUuid.keys()];
  const pins = Map.groupBy(await pinnedLayers(host.catalog, uuids), ({ image }) => image);
  const names = await imageNames(host.catalog, uuids);
  const gainOf = await imageGains(host, uuids);
  return records.map((record) => {
    const guest = byUuid.get(record.guest);
    const manifest = fromStored<Manifest>(record.manifest);
    const { memoryFile, screen } = manifest;
    const directory = join(guestDirectory(host.paths.data, record.guest).images, record.id);
    const memory = join(directory, memoryFile.name);
    const pinned = pins.get(record.id) ?? [];
    const gain = gainOf({ memory, manifest, pinned: pinned.map(({ layerId }) => layerId) });
    const disks = pinned.map((pin) => ({
      name: pin.disk,
      layer: pin.path,
      format: pin.format,
      sizeBytes: pin.sizeBytes,
      storedBytes: storedBytes(pin),
    }));
    return {
      name: record.name,
      guest: guest?.name ?? manifest.guest.name,
      state: record.state,
      createdAt: record.createdAt,
      live: record.live === 1,
      method: manifest.method,
      pauseMs: manifest.pauseMs,
      predictedPauseMs: manifest.pause?.predictedMs ?? null,
      maxPauseMs: manifest.pause?.maxMs ?? null,
      pauseParts: partsOf(manifest),
      bytesWritten: manifest.bytesWritten ?? null,
      memoryBytes: record.memoryBytes,
      diskBytes: disks.reduce((sum, disk) => sum + disk.sizeBytes, 0),
      storedBytes: disks.reduce(
        (sum, disk) => sum + disk.storedBytes,
        memoryFile.storedBytes + (screen?.storedBytes ?? 0),
      ),
      freesBytes: gain.freesBytes,
      freesAtMostBytes: gain.freesAtMostBytes,
      description: record.description,
      parent: names.get(record.parent ?? '') ?? null,
      disks,
      media: (manifest.media ?? []).map(({ disk, path, kind, sha256 }) => ({ disk, path, kind, sha256 })),
      verifiedAt: record.verifiedAt,
      ...soundness(record),
      protected: record.protected === 1,
      schedule: record.schedule,
      current: guest?.currentImage === record.id,
      saveMs: manifest.saveMs,
      guestWasPaused: manifest.guestWasPaused,
      quiesce: manifest.quiesce?.outcome ?? 'skipped',
      quiesceReason: manifest.quiesce === undefined ? 'not asked for' : manifest.quiesce.reason,
      frozenMs: manifest.quiesce?.frozenMs ?? null,
      qemuVersion: manifest.qemuVersion,
      machine: manifest.definition.machine,
      memoryFile: memory,
      screenFile: screen ? join(directory, screen.name) : null,
      restoredCount: record.restoredCount,
      restoreMethod: record.restoreMethod,
      definition: manifest.definition,
    };
  });
}

function soundness(record: ImageRecord): Pick<Image, 'verified' | 'damage'> {
  const { checksumsAt = null, bootAt = null, evidence = [], damage = null } = verificationOf(record);
  return { verified: { checksumsAt, bootAt, evidence: [...evidence] }, damage };
}

function partsOf({ pause }: Manifest): Image['pauseParts'] {
  const parts = pause?.parts ?? null;
  if (parts === null) return null;
  const { stopMs, disksMs, memoryMs, resumeMs } = parts;
  return { stopMs, disksMs, memoryMs, resumeMs };
}

/** What a layer occupies inside Stasis; the user's own file counts nothing, it was there before. */
function storedBytes({ root, storedBytes: bytes }: PinnedLayer): number {
  return root === 1 || bytes === null ? 0 : bytes;
}

/** An operation from its record, or, while it runs here, from what only this process knows. */
export async function operationView(
  context: ViewContext,
  record: OperationRecord,
  live?: LiveOperation,
): Promise<Operation> {
  return {
    ...operationSummary(record, live),
    result: record.state === 'done' ? await resultOf(context, record) : {},
  };
}

/** The same without its result: for lists, and for a stream while the work goes on. */
export function operationSummary(record: OperationRecord, live?: LiveOperation): Operation {
  const steps = live?.steps ?? fromStored<Step[]>(record.steps);
  return {
    id: record.id,
    kind: record.kind,
    guest: record.guestName,
    image: record.image,
    schedule: fromStored<{ schedule?: { name: string } }>(record.args).schedule?.name ?? null,
    state: record.state,
    phase: steps.at(-1)?.name ?? 'planned',
    bytesDone: live?.bytesDone ?? 0,
    bytesTotal: live?.bytesTotal ?? 0,
    cancellable: live?.cancellable ?? false,
    createdAt: record.createdAt,
    finishedAt: record.finishedAt,
    steps: [...steps],
    error: record.error === null ? null : fromStored<ErrorBody>(record.error),
    warnings: fromStored<string[]>(record.warnings),
    outcomes: fromStored<Outcome[]>(record.outcomes),
    result: {},
  };
}

async function resultOf(context: ViewContext, record: OperationRecord): Promise<Operation['result']> {
  const { catalog } = context.host;
  const reader = context.host.readers.find(record.id);
  if (reader !== undefined) return { export: exportView(context.host, reader) };
  const guest = await catalog
    .selectFrom('guests')
    .selectAll()
    .where('name', '=', record.guestName)
    .executeTakeFirst();
  if (guest === undefined) return {};
  const image = record.image === null ? undefined : await findImage(catalog, guest.uuid, record.image);
  const [guestView] = await guestViews(context, [guest]);
  const [imageView] = image === undefined ? [] : await imageViews(context.host, [guest], [image]);
  return {
    ...(guestView === undefined ? {} : { guest: guestView }),
    ...(imageView === undefined ? {} : { image: imageView }),
  };
}
