/**
 * Shortening the chain below what a guest writes to. What the head lacks is copied up into it from the layers between it
 * and the bottom of its chain, and it then stands on the bottom alone. The layers between stay what they are: images pin
 * them, and what nothing holds any more is collected.
 *
 * It costs space, as what is copied is there twice, and disk bandwidth, so it has a rate. It holds the guest, but gives
 * way to whatever else is to be done to it. However far it came, every layer reads as before; what is copied already is
 * not copied again by the next one.
 */
import { dirname } from 'node:path';
import { getGuestByUuid } from '../catalog/guests.ts';
import { chainOf, getLayer, rootsOfGuest, setParent, type LayerRecord } from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { nodeName } from '../guests/command-line.ts';
import { checkSeals, headIds, loadForest, seal, unseal } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { backingChain, removeNode } from '../qemu/block/block-graph.ts';
import { streamInto } from '../qemu/block/block-merge.ts';
import { cancelJobs } from '../qemu/block/interrupted-jobs.ts';
import type { FileIdentity } from '../storage/identity.ts';
import { isWritable } from '../storage/layers.ts';
import { fromStored } from '../stored.ts';
import { collect } from './collect.ts';
import { refuseWithoutSpace, type Need } from './space.ts';

export interface CompactArgs {
  /** all of them when absent */
  readonly disk?: string;
  /** of a running guest; as fast as it goes when absent */
  readonly bytesPerSecond?: number;
  /** only when as much again stays free: nobody asked for it, and others need room too */
  readonly unasked?: boolean;
}

interface Shortening {
  readonly disk: string;
  readonly head: string;
  /** what the head stands on afterwards */
  readonly bottom: string;
  /** from the head downwards */
  readonly between: readonly string[];
}

interface CompactPlan {
  readonly guest: string;
  readonly disks: readonly Shortening[];
  readonly skipped: readonly { readonly disk: string; readonly reason: string }[];
  readonly bytesPerSecond: number | null;
}

export function compactProcedure(host: Host): Procedure<CompactArgs, CompactPlan> {
  const { catalog, supervisor } = host;
  return {
    name: 'compact',
    cancellable: true,
    givesWay: 'always',

    async plan(args, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      const heads = await headIds(catalog, guest.uuid);
      if (args.disk !== undefined && !heads.some(({ disk }) => disk === args.disk)) {
        const known = heads.map(({ disk }) => disk).join(', ') || 'none';
        throw new StasisError(
          'invalid-request',
          `guest ${guest.name} has no disk "${args.disk}" with layers (those with: ${known})`,
        );
      }
      if (supervisor.find(guest.uuid) === undefined) await checkSeals(host, heads);
      const forest = await loadForest(host, await rootsOfGuest(catalog, guest.uuid));
      const disks: Shortening[] = [];
      const needs: Need[] = [];
      const skipped: { disk: string; reason: string }[] = [];
      for (const { disk, layer } of heads.filter((head) => (args.disk ?? head.disk) === head.disk)) {
        const [, ...below] = await chainOf(catalog, layer);
        const bottom = below.pop();
        if (bottom === undefined || below.length === 0) {
          skipped.push({ disk, reason: 'there is nothing between what the guest writes to and the bottom' });
        } else if (isWritable(forest, layer)) {
          disks.push({ disk, head: layer, bottom: bottom.id, between: below.map(({ id }) => id) });
          needs.push(await copyNeed(host, disk, layer, below));
        } else {
          skipped.push({ disk, reason: 'an image holds what the guest would write to; start it first' });
        }
      }
      if (args.unasked === true)
        needs.push(...needs.map((need) => ({ ...need, what: `left free for ${need.what}` })));
      await refuseWithoutSpace(host, 'copying', needs);
      return { guest: guest.uuid, disks, skipped, bytesPerSecond: args.bytesPerSecond ?? null };
    },

    async run(plan, operation) {
      for (const { disk, reason } of plan.skipped)
        await operation.outcome({
          name: `compact ${disk}`,
          outcome: 'skipped',
          message: `disk ${disk}: ${reason}`,
        });
      for (const shortening of plan.disks) {
        const { disk, between } = shortening;
        await operation.step('copy-up', () => copyUp(host, plan, shortening, operation));
        await operation.step('record', () => record(host, plan.guest, shortening));
        const message = `disk ${disk}: a chain of ${between.length + 2} layers became one of 2`;
        await operation.outcome({ name: `compact ${disk}`, outcome: 'done', message });
      }
      await operation.commit(() => Promise.resolve());
    },

    /** Nothing has to be taken back: what is copied reads as what it was copied from. */
    async undo(plan, operation) {
      const process = await supervisor.findAlive(plan.guest);
      if (operation.recovering && process !== undefined) await cancelJobs(process.qmp);
      for (const shortening of plan.disks) await record(host, plan.guest, shortening);
    },

    finish: (plan, operation) => collect(host, plan.guest, operation),
  };
}

async function copyUp(
  host: Host,
  plan: CompactPlan,
  shortening: Shortening,
  operation: OperationHandle,
): Promise<void> {
  const head = await getLayer(host.catalog, shortening.head);
  const bottom = await getLayer(host.catalog, shortening.bottom);
  const qmp = host.supervisor.find(plan.guest)?.qmp;
  if (qmp !== undefined) {
    await streamInto(qmp, {
      jobId: `compact-${head.id}`,
      node: nodeName(head.id),
      baseNode: nodeName(bottom.id),
      backingFile: bottom.path,
      speedBytesPerSecond: plan.bytesPerSecond ?? undefined,
      onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
      signal: operation.signal,
    });
    return;
  }
  await unseal(host.catalog, [head.id]);
  await host.ownership.letReadChain(head.id);
  await host.ownership.letWriteLayer(head);
  const change = {
    path: head.path,
    backing: bottom.path,
    backingFormat: bottom.format,
    unsafe: false,
  } as const;
  await host.imageTool.rebase(change, {
    signal: operation.signal,
    onProgress: (done) => operation.progress(done * head.sizeBytes, head.sizeBytes),
  });
}

/**
 * What QEMU, or the header of a file that nobody has open, says of the head's chain becomes the truth of the catalog.
 * Until then the catalog has the longer chain, through which the head reads the same. Repeatable.
 */
async function record(
  host: Host,
  guest: string,
  { head: id, bottom: bottomId, between }: Shortening,
): Promise<void> {
  const head = await getLayer(host.catalog, id);
  const bottom = await getLayer(host.catalog, bottomId);
  const qmp = host.supervisor.find(guest)?.qmp;
  if (qmp === undefined) {
    await host.ownership.letReadLayer(head);
    const header = await host.imageTool.info(head.path, { format: 'qcow2' });
    if (header['backing-filename'] === bottom.path) await setParent(host.catalog, head.id, bottom.id);
    if (head.identity === null) await seal(host, [head.id]);
    return;
  }
  const chain = await backingChain(qmp, nodeName(head.id));
  if (chain.some((node) => between.some((layer) => node === nodeName(layer)))) return;
  // As long as QEMU has them open, nobody can merge them. Each is the backing node of the one before.
  for (const layer of between) await removeNode(qmp, nodeName(layer));
  await setParent(host.catalog, head.id, bottom.id);
}

/** At most all that is stored between can be copied, and no more than the disk has. What the head has already isn't known. */
async function copyNeed(
  host: Host,
  disk: string,
  head: string,
  between: readonly LayerRecord[],
): Promise<Need> {
  const { path, sizeBytes } = await getLayer(host.catalog, head);
  const storedBytes = between.reduce((sum, { identity }) => sum + storedIn(identity), 0);
  return { what: `disk ${disk}`, directory: dirname(path), bytes: Math.min(storedBytes, sizeBytes) };
}

function storedIn(identity: string | null): number {
  return identity === null ? 0 : fromStored<FileIdentity>(identity).storedBytes;
}
