/** Guests whose QEMU goes on while there is no catalog: which they are, and what each of their disks is written to. */
import { join } from 'node:path';
import { namesIn } from '../directory.ts';
import { messageOf } from '../errors.ts';
import { layerOfNode } from '../guests/command-line.ts';
import { headNodes } from '../qemu/block/block-graph.ts';
import { cancelJobs } from '../qemu/block/interrupted-jobs.ts';
import { recoverCapture } from '../qemu/capture/capture.ts';
import { findQemuProcesses } from '../qemu/process/process-scan.ts';
import { attachQemu } from '../qemu/process/process.ts';

/** What a guest writes to. */
export interface WrittenLayer {
  readonly id: string;
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  readonly sizeBytes: number;
}

export interface LivingGuest {
  /** name of its run directory */
  readonly instance: string;
  readonly uuid: string;
  /** by the device's id, as `deviceId` has it */
  readonly heads: ReadonlyMap<string, WrittenLayer>;
}

/** A QEMU that doesn't answer, or is somebody else's. */
export interface SilentGuest {
  readonly instance: string;
  readonly whyNot: string;
}

const ANSWER_MS = 10_000;

/** Asks every QEMU of a home. One that doesn't answer is told of, and left alone. */
export async function findLiving(
  runDirectory: string,
): Promise<{ readonly living: readonly LivingGuest[]; readonly silent: readonly SilentGuest[] }> {
  const root = join(runDirectory, 'guests');
  const living: LivingGuest[] = [];
  const silent: SilentGuest[] = [];
  for (const instance of await namesIn(root)) {
    if ((await findQemuProcesses(join(root, instance))).length === 0) continue;
    try {
      living.push(await ask(root, instance));
    } catch (error) {
      silent.push({ instance, whyNot: messageOf(error) });
    }
  }
  return { living, silent };
}

/** Run states in which only a capture leaves a guest. */
const LEFT_BY_CAPTURE: readonly string[] = ['finish-migrate', 'postmigrate'];

/** Ends what an operation of which nobody knows any more left in a QEMU: block jobs, a capture, its settings, its pause. */
export async function putInOrder(runDirectory: string, { instance }: LivingGuest): Promise<void> {
  await using process = await attachQemu(join(runDirectory, 'guests', instance), { timeoutMs: ANSWER_MS });
  if (process === undefined) return; // it has ended meanwhile, which the daemon will see
  const { qmp } = process;
  await cancelJobs(qmp);
  const { status } = await qmp.execute('query-status');
  await recoverCapture(qmp, { wasRunning: LEFT_BY_CAPTURE.includes(status) });
}

async function ask(root: string, instance: string): Promise<LivingGuest> {
  await using process = await attachQemu(join(root, instance), { timeoutMs: ANSWER_MS });
  if (process === undefined) throw new Error('it has no socket to ask it');
  const { qmp } = process;
  const { UUID: uuid } = await qmp.execute('query-uuid');
  const opened = new Map<string, WrittenLayer>();
  for (const { inserted } of await qmp.execute('query-block')) {
    const id = layerOfNode(inserted?.['node-name'] ?? '');
    if (inserted === undefined || id === undefined) continue;
    const { filename: path, format, 'virtual-size': sizeBytes } = inserted.image;
    opened.set(id, { id, path, format: format === 'qcow2' ? 'qcow2' : 'raw', sizeBytes });
  }
  const heads = new Map<string, WrittenLayer>();
  for (const [device, node] of await headNodes(qmp)) {
    const layer = opened.get(layerOfNode(node) ?? '');
    if (layer !== undefined) heads.set(device, layer);
  }
  return { instance, uuid, heads };
}
