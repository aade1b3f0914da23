/** Records as clients see them. Lists are made with a few queries, however long they are. */
import { join } from 'node:path';
import type { Guest, GuestState, Image, Operation } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import { findImage, countImages, type ImageRecord } from '../catalog/images.ts';
import { listHolds, listLayers, type LayerRecord } from '../catalog/layers.ts';
import type { OperationRecord } from '../catalog/operations.ts';
import type { ErrorBody } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { Manifest } from '../images/manifest.ts';
import type { LiveOperation, OperationEngine, Step } from '../operations/engine.ts';
import type { FileIdentity } from '../storage/identity.ts';
import { fromStored } from '../stored.ts';

export interface ViewContext {
  readonly host: Host;
  readonly engine: OperationEngine;
}

export interface DaemonContext extends ViewContext {
  readonly startedAt: string;
}

export async function guestViews(
  { host, engine }: ViewContext,
  records: readonly GuestRecord[],
): Promise<Guest[]> {
  const layers = new Map((await listLayers(host.catalog)).map((layer) => [layer.id, layer]));
  const { heads } = await listHolds(host.catalog);
  const counts = await countImages(host.catalog);
  const currentIds = records.flatMap((record) => record.currentImage ?? []);
  const current = new Map(
    currentIds.length === 0
      ? []
      : (
          await host.catalog
            .selectFrom('images')
            .select(['id', 'name'])
            .where('id', 'in', currentIds)
            .where('state', '!=', 'deleting')
            .execute()
        ).map(({ id, name }) => [id, name]),
  );
  return records.map((record) => {
    const definition = storedDefinition(record);
    const run = host.supervisor.runState(record.uuid);
    const images = counts.get(record.uuid);
    const operation = engine.holderOf(record.uuid)?.record;
    return {
      name: record.name,
      uuid: record.uuid,
      state: guestState(record, run?.state, operation),
      memoryBytes: definition.memoryBytes,
      cpus: definition.cpus,
      disks: definition.disks.map((disk) => {
        const head = heads.find(
          (candidate) => candidate.guest === record.uuid && candidate.disk === disk.name,
        );
        const chain = chainIn(layers, head?.layer);
        const { name, path, format, bus, readonly } = disk;
        return {
          name,
          path,
          format,
          bus,
          readonly,
          sizeBytes: chain[0]?.sizeBytes ?? 0,
          layers: chain.length,
          head: chain[0]?.path ?? path,
        };
      }),
      images: images?.count ?? 0,
      lastImage: images?.lastName ?? null,
      lastImageAt: images?.lastAt ?? null,
      currentImage: current.get(record.currentImage ?? '') ?? null,
      policy: definition.policy,
      machine: definition.machine,
      cpu: definition.cpu,
      accelerator: definition.accelerator,
      pid: host.supervisor.find(record.uuid)?.pid ?? null,
      operation: operation?.id ?? null,
      createdAt: record.createdAt,
      stateReason: run?.reason ?? record.stateReason,
      definition,
    };
  });
}

function guestState(
  record: GuestRecord,
  run: 'running' | 'paused' | undefined,
  operation: OperationRecord | undefined,
): GuestState {
  if (operation?.procedure === 'save') return 'saving';
  if (operation?.procedure === 'restore') return 'restoring';
  if (run !== undefined) return run;
  // A process that doesn't answer is there all the same.
  if (record.instance !== null) return 'paused';
  return record.crashed === 1 ? 'crashed' : 'stopped';
}

function chainIn(layers: ReadonlyMap<string, LayerRecord>, head: string | undefined): LayerRecord[] {
  const chain: LayerRecord[] = [];
  for (let next = layers.get(head ?? ''); next !== undefined; next = layers.get(next.parent ?? ''))
    chain.push(next);
  return chain;
}

export async function imageViews(
  { host }: ViewContext,
  guests: readonly GuestRecord[],
  records: readonly ImageRecord[],
): Promise<Image[]> {
  const byUuid = new Map(guests.map((guest) => [guest.uuid, guest]));
  const layers = new Map((await listLayers(host.catalog)).map((layer) => [layer.id, layer]));
  const pins = Map.groupBy((await listHolds(host.catalog)).pins, (pin) => pin.image);
  const names = new Map(records.map((record) => [record.id, record.name]));
  return records.map((record) => {
    const guest = byUuid.get(record.guest);
    const manifest = fromStored<Manifest>(record.manifest);
    const disks = (pins.get(record.id) ?? []).map((pin) => {
      const layer = layers.get(pin.layer);
      return {
        name: pin.disk,
        layer: layer?.path ?? '',
        format: layer?.format ?? '',
        sizeBytes: layer?.sizeBytes ?? 0,
        storedBytes: storedBytes(layer),
      };
    });
    return {
      name: record.name,
      guest: guest?.name ?? manifest.guest.name,
      state: record.state,
      createdAt: record.createdAt,
      live: record.live === 1,
      method: manifest.method,
      pauseMs: manifest.pauseMs,
      predictedPauseMs: null,
      memoryBytes: record.memoryBytes,
      diskBytes: disks.reduce((sum, disk) => sum + disk.sizeBytes, 0),
      storedBytes: manifest.memoryFile.storedBytes + disks.reduce((sum, disk) => sum + disk.storedBytes, 0),
      description: record.description,
      parent: names.get(record.parent ?? '') ?? null,
      disks,
      verifiedAt: record.verifiedAt,
      current: guest?.currentImage === record.id,
      saveMs: manifest.saveMs,
      guestWasPaused: manifest.guestWasPaused,
      qemuVersion: manifest.qemuVersion,
      machine: manifest.definition.machine,
      memoryFile: join(
        guestDirectory(host.paths.data, record.guest).images,
        record.id,
        manifest.memoryFile.name,
      ),
      restoredCount: record.restoredCount,
      restoreMethod: record.restoreMethod,
      definition: manifest.definition,
    };
  });
}

/** What a layer occupies inside Stasis; the user's own file counts nothing, it was there before. */
function storedBytes(layer: LayerRecord | undefined): number {
  if (layer === undefined || layer.root === 1 || layer.identity === null) return 0;
  return fromStored<FileIdentity>(layer.identity).storedBytes;
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
    result: {},
  };
}

async function resultOf(context: ViewContext, record: OperationRecord): Promise<Operation['result']> {
  const { catalog } = context.host;
  const guest = await catalog
    .selectFrom('guests')
    .selectAll()
    .where('name', '=', record.guestName)
    .executeTakeFirst();
  if (guest === undefined) return {};
  const image = record.image === null ? undefined : await findImage(catalog, guest.uuid, record.image);
  const [guestView] = await guestViews(context, [guest]);
  const [imageView] = image === undefined ? [] : await imageViews(context, [guest], [image]);
  return {
    ...(guestView === undefined ? {} : { guest: guestView }),
    ...(imageView === undefined ? {} : { image: imageView }),
  };
}
