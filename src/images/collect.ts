/**
 * Collecting layers that nothing holds any more: the model's steps (storage/layers.ts) done to files, with a block
 * job when a guest has them open and with qemu-img when none has. Every step may be begun again after any crash.
 */
import {
  chainOf,
  childrenOf,
  deleteLayer,
  findLayer,
  getLayer,
  guestsOver,
  moveHolds,
  rootsOfGuest,
  setIdentity,
  setParent,
  writerOf,
  type LayerRecord,
} from '../catalog/layers.ts';
import { StasisError } from '../errors.ts';
import { deviceId, layerOfNode, nodeName } from '../guests/command-line.ts';
import { headIds, loadForest, seal, unseal } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import type { BlockJobOptions } from '../qemu/block/block-job.ts';
import { backingChain, headNodes, removeNode } from '../qemu/block/block-graph.ts';
import { commitActive, commitIntermediate, streamInto } from '../qemu/block/block-merge.ts';
import { cancelJobs } from '../qemu/block/interrupted-jobs.ts';
import type { QmpClient } from '../qemu/qmp/client.ts';
import type { FileIdentity } from '../storage/identity.ts';
import { collectSteps, type CollectStep } from '../storage/layers.ts';
import { fromStored } from '../stored.ts';

/** For whom layers are collected. */
interface Work {
  readonly operation: OperationHandle;
  /** aborted when what has to be copied is to be copied later */
  readonly copying: AbortSignal;
}

/** The one running guest that has a layer open. */
interface OpenDisk {
  readonly guest: string;
  readonly qmp: QmpClient;
  /** what that guest writes to */
  readonly head: string;
}

/** What is copied after a crash would keep the daemon from serving, for as long as that takes. */
const LATER = AbortSignal.abort(new StasisError('cancelled', 'what has to be copied is copied later'));

/**
 * Removes and merges layers of a guest's disks until each that is left has its reason. Repeatable. After a crash only what was begun
 * is brought to a good end, or back; what has still to be copied the daemon comes back to.
 */
export async function collect(host: Host, guest: string, operation: OperationHandle): Promise<void> {
  const copying = operation.recovering ? LATER : operation.signal;
  await collectTrees(host, await rootsOfGuest(host.catalog, guest), operation, copying);
}

/**
 * The same over given root layers, to its end also after a crash. They may carry the disks of several guests, clones of each other: what can't be
 * done now, since another guest is busy, several have the layers open, the disk is full or something more urgent is to be done, is left
 * for later.
 */
export async function collectTrees(
  host: Host,
  roots: readonly string[],
  operation: OperationHandle,
  copying: AbortSignal = operation.signal,
): Promise<void> {
  await settleInterrupted(host, roots, operation);
  const deferred = new Set<string>();
  for (;;) {
    const steps = collectSteps(await loadForest(host, roots));
    const step = steps.find(({ layer }) => !deferred.has(layer));
    if (step === undefined || operation.signal.aborted) return;
    if (!(await tryStep(host, step, { operation, copying }))) deferred.add(step.layer);
  }
}

/** @returns whether the step could be done now */
async function tryStep(host: Host, step: CollectStep, work: Work): Promise<boolean> {
  const { operation } = work;
  let done = false;
  await operation.whileHolding(await guestsOver(host.catalog, [step.layer]), async () => {
    const users = await openDisks(host, step.layer);
    if (!(await isPossible(host, step, users, operation.guest))) return;
    done = await operation.step(`${step.action}-layer`, () =>
      performUnlessPutOff(host, step, users[0], work),
    );
  });
  return done;
}

/** @param guest whose operation wants to */
async function isPossible(
  host: Host,
  step: CollectStep,
  [user, ...others]: readonly OpenDisk[],
  guest: string | null,
): Promise<boolean> {
  const foldsAnothersHead = user?.head === step.layer && user.guest !== guest;
  // A file that QEMU or a reader has open under its name can't become another.
  const isOpen = user !== undefined || (await host.readers.layers()).has(step.layer);
  const replacesOpenFile = step.action === 'replace' && isOpen;
  if (others.length > 0 || foldsAnothersHead || replacesOpenFile) return false;
  return canReplace(host, step);
}

/**
 * A merge takes room before it gives any, and to remove something is recorded first. Without it layers stay as they are, with what is in them: whoever makes room by deleting
 * images, or wants to stop a guest, is not held up by that; nor by a merge that nobody waits for. The daemon comes back to it.
 * @returns whether it was done
 */
async function performUnlessPutOff(
  host: Host,
  step: CollectStep,
  open: OpenDisk | undefined,
  work: Work,
): Promise<boolean> {
  const { operation, copying } = work;
  try {
    await perform(host, step, open, work);
    return true;
  } catch (error) {
    const { code } = StasisError.from(error);
    const isPutOff = code === 'cancelled' && copying.aborted;
    if (code !== 'no-space' && !isPutOff) throw error;
    const children = await childrenOf(host.catalog, step.layer);
    const changing =
      step.action === 'remove' ? children : [await getLayer(host.catalog, step.into), ...children];
    for (const { id, identity } of changing) if (identity === null) await sealUnlessWritten(host, id);
    if (!isPutOff)
      await operation.warn(
        `there is no room to remove or merge layers of ${operation.guestName} now: that is tried again until there is`,
      );
    return false;
  }
}

async function perform(host: Host, step: CollectStep, open: OpenDisk | undefined, work: Work): Promise<void> {
  const layer = await findLayer(host.catalog, step.layer);
  if (layer === undefined) return; // an operation on another guest was faster
  switch (step.action) {
    case 'remove':
      return remove(host, layer);
    case 'absorb':
      return absorb(host, layer, await getLayer(host.catalog, step.into), open, work);
    case 'fold':
      return fold(host, layer, await getLayer(host.catalog, step.into), open, work);
    case 'replace':
      return replaceRoot(host, layer, await getLayer(host.catalog, step.into), work.operation);
    default:
      return step satisfies never;
  }
}

/** The row goes last: as long as it is there, the file is known. That nothing needs it stands in the records before. */
async function remove(host: Host, layer: LayerRecord): Promise<void> {
  await host.records.flush();
  // A merge in a running guest leaves the node of what was merged.
  const root = (await chainOf(host.catalog, layer.id)).at(-1)?.id ?? layer.id;
  for (const guest of await guestsOver(host.catalog, [root])) {
    const qmp = host.supervisor.find(guest)?.qmp;
    if (qmp !== undefined) await removeNode(qmp, nodeName(layer.id));
  }
  await host.drivers.get(layer.driver).remove(layer);
  await deleteLayer(host.catalog, layer.id);
}

/** What the child lacks of its parent is copied up into it; the parent is then nobody's, and the next step removes it. */
async function absorb(
  host: Host,
  layer: LayerRecord,
  into: LayerRecord,
  open: OpenDisk | undefined,
  work: Work,
): Promise<void> {
  if (layer.parent === null) throw new Error(`layer ${layer.id} is no root and has no parent`);
  const parent = await getLayer(host.catalog, layer.parent);
  await breakSeals(host, [into.id]);
  if (open === undefined) {
    await host.ownership.letReadChain(layer.id);
    await host.ownership.letWriteLayer(into);
    await rebaseOffline(host, into, { from: layer, onto: parent }, work.copying);
  } else {
    // After a crash the job may have ended already: then QEMU's chain says so.
    if ((await backingChain(open.qmp, nodeName(into.id))).includes(nodeName(layer.id))) {
      work.copying.throwIfAborted();
      await host.ownership.letWriteLayer(into);
      await streamInto(open.qmp, {
        jobId: `absorb-${layer.id}`,
        node: nodeName(into.id),
        baseNode: nodeName(parent.id),
        backingFile: parent.path,
        ...jobOptions(work),
      });
    }
  }
  await setParent(host.catalog, into.id, parent.id);
  await sealUnlessWritten(host, into.id);
}

/** A header that names the new one already, while not all that was copied is there, is set right: after a power cut, and when it is ended. */
async function rebaseOffline(
  host: Host,
  layer: LayerRecord,
  { from, onto }: { readonly from: LayerRecord; readonly onto: LayerRecord },
  signal: AbortSignal,
): Promise<void> {
  await standOn(host, layer, from);
  try {
    const { path: backing, format: backingFormat } = onto;
    await host.imageTool.rebase({ path: layer.path, backing, backingFormat, unsafe: false }, { signal });
  } catch (error) {
    if (signal.aborted) await standOn(host, layer, from);
    throw error;
  }
}

/** In its file's header alone, which nobody has open: for when both read the same. */
function standOn(host: Host, { path }: LayerRecord, below: LayerRecord): Promise<void> {
  return host.imageTool.rebase({
    path,
    backing: below.path,
    backingFormat: below.format,
    unsafe: true,
  });
}

function jobOptions({ operation, copying }: Work): Pick<BlockJobOptions, 'signal' | 'onProgress'> {
  return {
    signal: copying,
    onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
  };
}

/** The child is written down into the root, which takes its place; the child is then nobody's, and the next step removes it. */
async function fold(
  host: Host,
  layer: LayerRecord,
  into: LayerRecord,
  open: OpenDisk | undefined,
  work: Work,
): Promise<void> {
  // QEMU rewrites the headers of what stands on it at the end of its job.
  const children = await childrenOf(host.catalog, layer.id);
  await breakSeals(host, [into.id, ...children.map(({ id }) => id)]);
  if (open === undefined) {
    // After a crash it may be folded already: doing it again writes the same bytes.
    for (const written of [layer, into]) await host.ownership.letWriteLayer(written);
    await host.imageTool.commit({ top: layer.path, base: into.path }, { signal: work.copying });
    await becomeOne(host, layer, into, open);
  } else if (open.head === layer.id) {
    await foldHead(host, layer, into, open, work);
  } else {
    if ((await backingChain(open.qmp, nodeName(open.head))).includes(nodeName(layer.id))) {
      work.copying.throwIfAborted();
      for (const written of [into, ...children]) await host.ownership.letWriteLayer(written);
      await commitIntermediate(open.qmp, {
        jobId: `fold-${layer.id}`,
        head: nodeName(open.head),
        top: nodeName(layer.id),
        base: nodeName(into.id),
        backingFile: into.path,
        ...jobOptions(work),
      });
    }
    await becomeOne(host, layer, into, open);
  }
  await sealUnlessWritten(host, into.id);
}

/** Its driver may have to wait until something else is gone. */
async function canReplace(host: Host, { action, layer: id }: CollectStep): Promise<boolean> {
  const layer = action === 'replace' ? await findLayer(host.catalog, id) : undefined;
  if (layer === undefined) return true;
  return (await host.drivers.get(layer.driver).whyNotReplace?.(layer)) === undefined;
}

/** A copy that a guest stands on becomes the user's own disk; it is nobody's then, and the next step forgets it. */
async function replaceRoot(
  host: Host,
  layer: LayerRecord,
  root: LayerRecord,
  operation: OperationHandle,
): Promise<void> {
  if (layer.identity === null) await seal(host, [layer.id]);
  await host.records.flush();
  const { identity } = await getLayer(host.catalog, layer.id);
  await host.drivers.get(root.driver).replaceRoot(layer, root, fromStored<FileIdentity>(identity ?? ''));
  await operation.failpoint('replace:moved');
  await setIdentity(host.catalog, root.id, identity);
  await becomeOne(host, layer, root, undefined);
}

/**
 * The guest writes to this very layer. It stands still while the root takes its place, first in QEMU and then in the
 * catalog: after a crash between the two both files hold the same, and either is right.
 */
async function foldHead(
  host: Host,
  layer: LayerRecord,
  into: LayerRecord,
  open: OpenDisk,
  work: Work,
): Promise<void> {
  const { operation } = work;
  work.copying.throwIfAborted();
  const wasRunning = host.supervisor.run(open.guest)?.state === 'running';
  await operation.step(wasRunning ? FOLD_RUNNING_HEAD : 'fold-paused-head', async () => {
    await host.ownership.letWriteLayer(into);
    await commitActive(open.qmp, {
      jobId: `fold-${layer.id}`,
      head: nodeName(layer.id),
      base: nodeName(into.id),
      ...jobOptions(work),
      beforePivot: () => operation.failpoint('pause:before-pivot'),
      afterPivot: async () => {
        await operation.failpoint('pause:after-pivot');
        await becomeOne(host, layer, into, open);
      },
    });
  });
}

const FOLD_RUNNING_HEAD = 'fold-running-head';

/** What a daemon that died in a merge left in a running QEMU: a job without a master, a pivot not yet recorded, a guest standing still. */
async function settleInterrupted(
  host: Host,
  roots: readonly string[],
  operation: OperationHandle,
): Promise<void> {
  if (!operation.recovering) return;
  const family = await guestsOver(host.catalog, roots);
  const settled = await operation.whileHolding(family, async () => {
    for (const member of family) {
      const process = host.supervisor.find(member);
      if (process !== undefined) await cancelJobs(process.qmp);
    }
  });
  if (!settled) throw new StasisError('busy', 'another guest on the same disks is busy');
  const guest = operation.guest ?? '';
  const qmp = host.supervisor.find(guest)?.qmp;
  if (qmp === undefined) return;
  const heads = await headNodes(qmp);
  for (const { disk, layer } of await headIds(host.catalog, guest)) {
    const actual = layerOfNode(heads.get(deviceId(disk)) ?? '');
    if (actual !== undefined && actual !== layer) {
      const [from, into] = [await getLayer(host.catalog, layer), await getLayer(host.catalog, actual)];
      await becomeOne(host, from, into, { guest, qmp, head: layer });
    }
  }
  const stands = (await qmp.execute('query-status')).status === 'paused';
  if (stands && operation.reached(FOLD_RUNNING_HEAD)) await qmp.execute('cont');
}

/** Where a layer is open: the running guests whose disks stand on it. */
async function openDisks(host: Host, layer: string): Promise<OpenDisk[]> {
  const open: OpenDisk[] = [];
  for (const guest of await guestsOver(host.catalog, [layer])) {
    const process = host.supervisor.find(guest);
    if (process === undefined) continue;
    for (const { layer: head } of await headIds(host.catalog, guest)) {
      if ((await chainOf(host.catalog, head)).some(({ id }) => id === layer))
        open.push({ guest, qmp: process.qmp, head });
    }
  }
  return open;
}

/** These files are about to change, and not by their guests: also who has only the records must know. */
async function breakSeals(host: Host, layers: readonly string[]): Promise<void> {
  await unseal(host.catalog, layers);
  await host.records.flush();
}

async function sealUnlessWritten(host: Host, layer: string): Promise<void> {
  const writer = await writerOf(host.catalog, layer);
  if (writer === undefined || host.supervisor.find(writer) === undefined) await seal(host, [layer]);
}

/** Everything that stood on or held `layer` stands on or holds `into`, in the files' headers and in the catalog. */
async function becomeOne(
  host: Host,
  layer: LayerRecord,
  into: LayerRecord,
  open: OpenDisk | undefined,
): Promise<void> {
  const children = await childrenOf(host.catalog, layer.id);
  const openLayers = open === undefined ? [] : await chainOf(host.catalog, open.head);
  for (const child of children) {
    await breakSeals(host, [child.id]);
    await host.ownership.letWriteLayer(child);
    // A header that QEMU has open has been rewritten by QEMU, as part of its job.
    if (!openLayers.some(({ id }) => id === child.id)) await standOn(host, child, into);
  }
  await host.catalog.transaction().execute(async (transaction) => {
    for (const child of children) await setParent(transaction, child.id, into.id);
    await moveHolds(transaction, layer.id, into.id);
  });
  for (const child of children) await sealUnlessWritten(host, child.id);
}

/** Is there anything to collect of a guest's layers now? */
export async function hasWork(host: Host, guest: string): Promise<boolean> {
  const roots = await rootsOfGuest(host.catalog, guest);
  for (const step of collectSteps(await loadForest(host, roots)))
    if (await isPossible(host, step, await openDisks(host, step.layer), guest)) return true;
  return false;
}

/** Collecting as an operation of its own: what an interrupted one left, or one that was put off. Nobody waits for it. */
export function collectProcedure(host: Host): Procedure<Record<string, never>, { guest: string }> {
  return {
    name: 'collect',
    cancellable: false,
    givesWay: 'always',
    plan: (_args, subject) => Promise.resolve({ guest: subject.guest ?? '' }),
    run: (_plan, operation) => operation.commit(() => Promise.resolve()),
    undo: () => Promise.resolve(),
    async finish(plan, operation) {
      await collect(host, plan.guest, operation);
      const message = 'something else was to be done to the guest; the rest is merged later';
      if (operation.signal.aborted) await operation.outcome({ name: 'collect', outcome: 'skipped', message });
    },
  };
}
