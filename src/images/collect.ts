/**
 * Collecting layers that nothing holds any more: the model's steps (storage/layers.ts) done to files, with a block
 * job when a guest has them open and with qemu-img when none has. Every step may be begun again after any crash.
 */
import { rm } from 'node:fs/promises';
import {
  chainOf,
  childrenOf,
  deleteLayer,
  getLayer,
  moveHolds,
  setParent,
  type LayerRecord,
} from '../catalog/layers.ts';
import { deviceId, layerOfNode, nodeName } from '../guests/command-line.ts';
import { headIds, loadForest, seal, unseal } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { backingChain, headNodes, removeNode } from '../qemu/block-graph.ts';
import { commitActive, commitIntermediate, streamInto } from '../qemu/block-merge.ts';
import { cancelJobs } from '../qemu/interrupted-jobs.ts';
import type { QmpClient } from '../qemu/qmp.ts';
import { nextCollectStep, type CollectStep } from '../storage/layers.ts';

/** A running guest's disk: where its chain is open. */
interface OpenDisk {
  readonly qmp: QmpClient;
  readonly head: string;
}

/** Removes and merges layers of a guest's disks until each that is left has its reason. Repeatable. */
export async function collect(host: Host, guest: string, operation: OperationHandle): Promise<void> {
  await settleInterrupted(host, guest, operation);
  for (;;) {
    const step = await nextStep(host, guest);
    if (step === undefined) return;
    await operation.step(`${step.action}-layer`, () => perform(host, guest, step, operation));
  }
}

async function nextStep(host: Host, guest: string): Promise<CollectStep | undefined> {
  return nextCollectStep(await loadForest(host.catalog, guest));
}

async function perform(
  host: Host,
  guest: string,
  step: CollectStep,
  operation: OperationHandle,
): Promise<void> {
  const layer = await getLayer(host.catalog, step.layer);
  switch (step.action) {
    case 'remove':
      return remove(host, guest, layer);
    case 'absorb':
      return absorb(host, guest, layer, await getLayer(host.catalog, step.into), operation);
    case 'fold':
      return fold(host, guest, layer, await getLayer(host.catalog, step.into), operation);
    default:
      return step satisfies never;
  }
}

/** The row goes last: as long as it is there, the file is known. */
async function remove(host: Host, guest: string, layer: LayerRecord): Promise<void> {
  const qmp = host.supervisor.find(guest)?.qmp;
  if (qmp !== undefined) await removeNode(qmp, nodeName(layer.id));
  await rm(layer.path, { force: true });
  await deleteLayer(host.catalog, layer.id);
}

/** What the child lacks of its parent is copied up into it; the parent is then nobody's, and the next step removes it. */
async function absorb(
  host: Host,
  guest: string,
  layer: LayerRecord,
  into: LayerRecord,
  operation: OperationHandle,
): Promise<void> {
  if (layer.parent === null) throw new Error(`layer ${layer.id} is no root and has no parent`);
  const parent = await getLayer(host.catalog, layer.parent);
  const open = await openDisk(host, guest, layer.id);
  await unseal(host.catalog, [into.id]);
  if (open === undefined) {
    await host.imageTool.rebase({
      path: into.path,
      backing: parent.path,
      backingFormat: parent.format,
      unsafe: false,
    });
  } else {
    // After a crash the job may have ended already: then QEMU's chain says so.
    if ((await backingChain(open.qmp, nodeName(into.id))).includes(nodeName(layer.id))) {
      await streamInto(open.qmp, {
        jobId: `absorb-${layer.id}`,
        node: nodeName(into.id),
        baseNode: nodeName(parent.id),
        backingFile: parent.path,
        onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
      });
    }
  }
  await setParent(host.catalog, into.id, parent.id);
  await sealUnlessHead(host, guest, into.id);
}

/** The child is written down into the root, which takes its place; the child is then nobody's, and the next step removes it. */
async function fold(
  host: Host,
  guest: string,
  layer: LayerRecord,
  into: LayerRecord,
  operation: OperationHandle,
): Promise<void> {
  const open = await openDisk(host, guest, layer.id);
  await unseal(host.catalog, [into.id]);
  if (open === undefined) {
    // After a crash it may be folded already: doing it again writes the same bytes.
    await host.imageTool.commit({ top: layer.path, base: into.path });
    await becomeOne(host, guest, layer, into);
  } else if (open.head === layer.id) {
    await foldHead(host, guest, layer, into, open, operation);
  } else {
    if ((await backingChain(open.qmp, nodeName(open.head))).includes(nodeName(layer.id))) {
      await commitIntermediate(open.qmp, {
        jobId: `fold-${layer.id}`,
        head: nodeName(open.head),
        top: nodeName(layer.id),
        base: nodeName(into.id),
        backingFile: into.path,
        onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
      });
    }
    await becomeOne(host, guest, layer, into);
  }
  await sealUnlessHead(host, guest, into.id);
}

/**
 * The guest writes to this very layer. It stands still while the root takes its place, first in QEMU and then in the
 * catalog: after a crash between the two both files hold the same, and either is right.
 */
async function foldHead(
  host: Host,
  guest: string,
  layer: LayerRecord,
  into: LayerRecord,
  open: OpenDisk,
  operation: OperationHandle,
): Promise<void> {
  const wasRunning = host.supervisor.runState(guest)?.state === 'running';
  await operation.step(wasRunning ? FOLD_RUNNING_HEAD : 'fold-paused-head', async () => {
    await commitActive(open.qmp, {
      jobId: `fold-${layer.id}`,
      head: nodeName(layer.id),
      base: nodeName(into.id),
      onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
      beforePivot: () => operation.failpoint('pause:before-pivot'),
      afterPivot: async () => {
        await operation.failpoint('pause:after-pivot');
        await becomeOne(host, guest, layer, into);
      },
    });
  });
}

const FOLD_RUNNING_HEAD = 'fold-running-head';

/** What a daemon that died in a merge left in a running QEMU: a job without a master, a pivot not yet recorded, a guest standing still. */
async function settleInterrupted(host: Host, guest: string, operation: OperationHandle): Promise<void> {
  const qmp = host.supervisor.find(guest)?.qmp;
  if (qmp === undefined || !operation.recovering) return;
  await cancelJobs(qmp);
  const heads = await headNodes(qmp);
  for (const { disk, layer } of await headIds(host.catalog, guest)) {
    const actual = layerOfNode(heads.get(deviceId(disk)) ?? '');
    if (actual !== undefined && actual !== layer) {
      await becomeOne(host, guest, await getLayer(host.catalog, layer), await getLayer(host.catalog, actual));
    }
  }
  const stands = (await qmp.execute('query-status')).status === 'paused';
  if (stands && operation.reached(FOLD_RUNNING_HEAD)) await qmp.execute('cont');
}

/** Where a layer is open in the guest's QEMU, or undefined when nobody has it open. */
async function openDisk(host: Host, guest: string, layer: string): Promise<OpenDisk | undefined> {
  const process = host.supervisor.find(guest);
  if (process === undefined) return undefined;
  for (const { layer: head } of await headIds(host.catalog, guest)) {
    if ((await chainOf(host.catalog, head)).some(({ id }) => id === layer)) return { qmp: process.qmp, head };
  }
  return undefined;
}

async function sealUnlessHead(host: Host, guest: string, layer: string): Promise<void> {
  const written =
    host.supervisor.find(guest) !== undefined &&
    (await headIds(host.catalog, guest)).some((head) => head.layer === layer);
  if (!written) await seal(host.catalog, [layer]);
}

/** Everything that stood on or held `layer` stands on or holds `into`, in the files' headers and in the catalog. */
async function becomeOne(host: Host, guest: string, layer: LayerRecord, into: LayerRecord): Promise<void> {
  const children = await childrenOf(host.catalog, layer.id);
  const open = await openLayers(host, guest);
  for (const child of children) {
    await unseal(host.catalog, [child.id]);
    // A header that QEMU has open has been rewritten by QEMU, as part of its job.
    if (!open.has(child.id))
      await host.imageTool.rebase({
        path: child.path,
        backing: into.path,
        backingFormat: into.format,
        unsafe: true,
      });
  }
  await host.catalog.transaction().execute(async (transaction) => {
    for (const child of children) await setParent(transaction, child.id, into.id);
    await moveHolds(transaction, layer.id, into.id);
  });
  for (const child of children) await sealUnlessHead(host, guest, child.id);
}

/** Every layer that the guest's QEMU has open. */
async function openLayers(host: Host, guest: string): Promise<Set<string>> {
  if (host.supervisor.find(guest) === undefined) return new Set();
  const heads = await headIds(host.catalog, guest);
  const chains = await Promise.all(heads.map(({ layer }) => chainOf(host.catalog, layer)));
  return new Set(chains.flat().map(({ id }) => id));
}

/** Is there anything to collect of a guest's layers? */
export async function hasWork(host: Host, guest: string): Promise<boolean> {
  return (await nextStep(host, guest)) !== undefined;
}

/** Collecting as an operation of its own: what an interrupted one left. */
export function collectProcedure(host: Host): Procedure<Record<string, never>, { guest: string }> {
  return {
    name: 'collect',
    cancellable: false,
    plan: (_args, subject) => Promise.resolve({ guest: subject.guest ?? '' }),
    run: (_plan, operation) => operation.commit(() => Promise.resolve()),
    undo: () => Promise.resolve(),
    finish: (plan, operation) => collect(host, plan.guest, operation),
  };
}
