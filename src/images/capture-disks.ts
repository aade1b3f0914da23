/**
 * The disks' part of a live save. Each disk is taken as its storage driver does (storage/driver.ts): by a copy of the
 * head, or by a switch to a new head. Both are named in the plan for a disk that can be copied, since a copy that would
 * take too long gives way to a switch; what was made of either and never came to count is removed by `giveUpDisks`.
 */
import { existsSync } from 'node:fs';
import type { DriverName } from '../api/constants.ts';
import type { Catalog } from '../catalog/database.ts';
import { getLayer, insertPin, listLayers, pinsOf, writerOf } from '../catalog/layers.ts';
import { deviceId, layerOfNode, nodeName, openedAs } from '../guests/command-line.ts';
import type { Definition } from '../guests/definition.ts';
import {
  driverOf,
  headIds,
  insertPlanned,
  installHeads,
  makeLayers,
  placeOf,
  removeLayers,
  seal,
  settleLayers,
  type DiskLayerId,
} from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import { addOverlayNode, headNodes, removeNode, switchDisks } from '../qemu/block/block-graph.ts';
import type { QmpClient } from '../qemu/qmp/client.ts';
import type { LayerFile, PlannedLayer } from '../storage/driver.ts';
import { planOverlay } from '../storage/overlay.ts';

export interface PlannedDisks {
  /** for each disk what the guest will write to afterwards, unless the disk is copied */
  readonly heads: readonly PlannedLayer[];
  /** for each disk whose driver can: a copy of what the guest writes to */
  readonly copies: readonly PlannedLayer[];
}

/** How the disks are taken this time. */
export interface DiskCapture {
  readonly before: readonly DiskLayerId[];
  /** new heads, of the disks that are switched */
  readonly heads: readonly PlannedLayer[];
  readonly copies: readonly PlannedLayer[];
}

export async function planDisks(
  host: Host,
  definition: Definition,
  before: readonly DiskLayerId[],
): Promise<PlannedDisks> {
  const heads: PlannedLayer[] = [];
  const copies: PlannedLayer[] = [];
  for (const { disk, layer } of before) {
    const head = await getLayer(host.catalog, layer);
    const place = placeOf(host, { definition, data: host.paths.data }, disk);
    const copy = await driverOf(host, definition, disk).planCopy?.(head, place);
    if (copy !== undefined) copies.push(copy);
    heads.push(planOverlay(head, place));
  }
  return { heads, copies };
}

/** What a copy of a disk would cost now. */
export interface CopyTime {
  readonly disk: string;
  readonly driver: DriverName;
  readonly copyMs: number;
}

/** Measures how long the copies of those disks would take that can be copied. The guest runs. */
export async function rehearseCopies(
  host: Host,
  definition: Definition,
  signal?: AbortSignal,
): Promise<CopyTime[]> {
  const times: CopyTime[] = [];
  const before = await headIds(host.catalog, definition.uuid);
  const { copies } = await planDisks(host, definition, before);
  for (const { disk, driver, from, reserveBytes } of copies) {
    const head = await getLayer(host.catalog, from);
    const copyMs = await host.drivers.get(driver).rehearse?.(head, signal, reserveBytes);
    if (copyMs !== undefined) times.push({ disk, driver, copyMs });
  }
  return times;
}

/** @param switched the disks that are not to be copied though they could be */
export function captureOf(
  { heads, copies }: PlannedDisks,
  before: readonly DiskLayerId[],
  switched: readonly string[] = [],
): DiskCapture {
  const copied = copies.filter(({ disk }) => !switched.includes(disk));
  return {
    before,
    copies: copied,
    heads: heads.filter(({ disk }) => !copied.some((copy) => copy.disk === disk)),
  };
}

/** Makes the new heads and opens them in QEMU, so that nothing has to be opened in the pause. */
export async function prepareDisks(
  host: Host,
  qmp: QmpClient,
  { heads }: DiskCapture,
  { disks }: Definition,
  signal: AbortSignal,
): Promise<void> {
  await makeLayers(host, heads, signal);
  for (const head of heads) {
    await host.ownership.letWrite(head.path, 'ours');
    const disk = disks.find(({ name }) => name === head.disk);
    await addOverlayNode(qmp, { nodeName: nodeName(head.id), path: head.path, ...openedAs(disk) });
  }
}

/** In the pause, when all that the guest wrote is flushed. A copy that fails leaves all disks as they were. */
export async function takeDisks(
  host: Host,
  qmp: QmpClient,
  { before, heads, copies }: DiskCapture,
  operation: OperationHandle,
): Promise<void> {
  if (copies.length > 0) {
    await operation.failpoint('pause:before-copy');
    const sources = await Promise.all(copies.map((copy) => getLayer(host.catalog, copy.from)));
    await Promise.all(
      copies.map(async (copy, index) => {
        const source = sources[index];
        if (source !== undefined) await host.drivers.get(copy.driver).make(copy, source);
      }),
    );
  }
  await operation.failpoint('pause:before-switch');
  await switchDisks(
    qmp,
    heads.map((head) => ({
      node: nodeName(before.find(({ disk }) => disk === head.disk)?.layer ?? ''),
      overlay: nodeName(head.id),
    })),
  );
  await operation.failpoint('pause:after-switch');
}

/** What the image will pin. */
export async function capturedLayers(
  catalog: Catalog,
  { before, copies }: DiskCapture,
): Promise<{ disk: string; layer: LayerFile }[]> {
  return Promise.all(
    before.map(async ({ disk, layer }) => ({
      disk,
      layer: copies.find((copy) => copy.disk === disk) ?? (await getLayer(catalog, layer)),
    })),
  );
}

/** Makes what was copied, and what the guest writes to from now on, survive a power cut. */
export async function settleDisks(host: Host, { copies, heads }: DiskCapture): Promise<void> {
  await settleLayers(host, [...copies, ...heads]);
}

/** Part of the commit: the image gets its layers, the guest its new heads. */
export async function recordDisks(
  transaction: Catalog,
  { guest, image }: { readonly guest: string; readonly image: string },
  capture: DiskCapture,
): Promise<void> {
  for (const copy of capture.copies) await insertPlanned(transaction, guest, copy);
  for (const { disk, layer } of await capturedLayers(transaction, capture))
    await insertPin(transaction, image, disk, layer.id);
  await installHeads(transaction, guest, capture.heads);
}

/** Seals what an image pins and nobody writes to. */
export async function sealPinned(host: Host, image: string): Promise<void> {
  for (const { layer } of await pinsOf(host.catalog, image)) {
    if ((await writerOf(host.catalog, layer.id)) === undefined) await seal(host, [layer.id]);
  }
}

/**
 * A live save that failed may or may not have switched the disks. QEMU knows; when it is gone, the new heads are
 * taken in either case: one that was never written to changes nothing. Layers that the catalog knows were taken by an
 * earlier undo that didn't come to its end. A copy is nothing to the guest and goes.
 */
export async function giveUpDisks(
  host: Host,
  plan: PlannedDisks & { readonly guest: string },
  qmp: QmpClient | undefined,
  operation: OperationHandle,
): Promise<void> {
  await removeLayers(host, plan.copies);
  const taken = new Set((await listLayers(host.catalog)).map(({ id }) => id));
  const open = plan.heads.filter(({ id, path }) => !taken.has(id) && existsSync(path));
  const current = qmp === undefined ? undefined : await headNodes(qmp);
  const switched = open.filter((head) =>
    current === undefined
      ? operation.reached('capture')
      : layerOfNode(current.get(deviceId(head.disk)) ?? '') === head.id,
  );
  await host.catalog.transaction().execute((transaction) => installHeads(transaction, plan.guest, switched));
  const unused = open.filter((head) => !switched.includes(head));
  if (qmp !== undefined) for (const head of unused) await removeNode(qmp, nodeName(head.id));
  await removeLayers(host, unused);
}
