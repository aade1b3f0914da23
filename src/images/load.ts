/** The machine of an image: launched on given disks, filled with the image's memory, and standing still. */
import { join } from 'node:path';
import type { ImageRecord } from '../catalog/images.ts';
import { StasisError, messageOf } from '../errors.ts';
import { commandLine, hasBridge, type MachineDisks } from '../guests/command-line.ts';
import type { Definition } from '../guests/definition.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import { tpmDirectory } from '../guests/tpm.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import { verifyMemoryFile, type MemoryFile } from '../qemu/memory/memory-file.ts';
import { readLogTail } from '../qemu/process/process.ts';
import { eager } from '../qemu/restore/eager.ts';
import { lazy, whyNotLazy } from '../qemu/restore/lazy.ts';
import { mapped, whyNotMapped } from '../qemu/restore/mapped.ts';
import type { RestoreMethod, RestoreMethodName, SavedMemory } from '../qemu/restore/restore.ts';
import { fromStored } from '../stored.ts';
import type { Manifest } from './manifest.ts';
import { verificationOf } from './verification.ts';

export function manifestOf(image: ImageRecord): Manifest {
  return fromStored<Manifest>(image.manifest);
}

/** The memory of an image that may be restored. @throws StasisError `image-damaged` when it isn't whole, or isn't this guest's */
export async function checkedMemory(host: Host, image: ImageRecord): Promise<SavedMemory> {
  const { definition, memoryBytes, memoryFile, guest } = manifestOf(image);
  if (image.state !== 'ready') {
    const { damage } = verificationOf(image);
    throw new StasisError(
      'image-damaged',
      `image ${image.name} of ${guest.name} is ${image.state} and can't be restored${damage === undefined ? '' : `: ${damage}`}`,
    );
  }
  const file = join(guestDirectory(host.paths.data, image.guest).images, image.id, memoryFile.name);
  const machineType = definition.machine;
  const memory = await verifyMemoryFile(file, { offset: memoryFile.offset, machineType, memoryBytes });
  return { file, memory };
}

const METHOD_WORDS = { mapped: 'mapped', lazy: 'lazily', eager: 'eagerly' } as const;

/**
 * How an image is restored: as asked for, else by the first method that image and host allow.
 * @throws StasisError `unsupported` with the reason when it can't be as asked for
 */
export async function chooseRestoreMethod(
  host: Host,
  image: ImageRecord,
  { memory }: SavedMemory,
  wanted: RestoreMethodName | undefined,
): Promise<RestoreMethodName> {
  const { memoryFile, definition } = manifestOf(image);
  const obstacles = {
    mapped: obstacleToMapping(memoryFile.mappable === true, definition, memory),
    lazy: await whyNotLazy(memory, host.qemu),
    eager: undefined,
  } as const satisfies Record<RestoreMethodName, string | undefined>;
  if (wanted === undefined) return BEST_FIRST.find((method) => obstacles[method] === undefined) ?? 'eager';
  const reason = obstacles[wanted];
  if (reason !== undefined) {
    throw new StasisError(
      'unsupported',
      `image ${image.name} can't be restored ${METHOD_WORDS[wanted]}: ${reason}; restore it with --method eager`,
    );
  }
  return wanted;
}

const BEST_FIRST = ['mapped', 'lazy', 'eager'] as const satisfies readonly RestoreMethodName[];

function obstacleToMapping(
  isMappable: boolean,
  { hugePageBytes }: Definition,
  memory: MemoryFile,
): string | undefined {
  if (!isMappable) return 'it was taken before that was possible';
  if (hugePageBytes !== undefined)
    return "the guest's memory is made of huge pages, which a mapped file is not";
  return whyNotMapped(memory);
}

export interface LoadPlan {
  readonly instance: string;
  readonly definition: Definition;
  readonly disks: MachineDisks;
  readonly method: RestoreMethodName;
}

/**
 * Launches the machine as a candidate of the supervisor's, and loads it. When this fails the caller discards it.
 * @throws StasisError `restore-failed`, `cancelled`
 */
export async function loadMachine(
  host: Host,
  image: ImageRecord,
  plan: LoadPlan,
  operation: OperationHandle,
): Promise<void> {
  const method = methodOf(plan.method);
  const saved = await checkedMemory(host, image);
  const memory = method.bringsMemory ? 'given' : 'own';
  const args = [...commandLine(plan.definition, plan.disks, memory), ...method.machineArgs(saved)];
  const request = { ...saved, hostPageBytes: plan.definition.hugePageBytes };
  // A pager is for those that have one: it gets ready while QEMU does.
  const pager = await method.startPager?.(host.supervisor.instanceDirectory(plan.instance), request);
  await host.ownership.letStart(plan.definition, plan.disks);
  await host.ownership.letRead(saved.file, 'ours');
  const { path } = await host.builds.get(plan.definition.qemu.build);
  const machine = {
    ...{ binary: path, args, tpmDirectory: tpmDirectory(host, plan.definition, plan.instance) },
    isIsolated: plan.definition.networks.some(({ type }) => type === 'lone-tap'),
    startsHelper: hasBridge(plan.definition),
  };
  const process = await host.supervisor.launch(plan.instance, machine, operation.signal);
  try {
    await method.load(process, {
      ...request,
      pager,
      signal: operation.signal,
      onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
    });
  } catch (error) {
    const failure = StasisError.from(error);
    if (failure.code === 'cancelled') throw failure;
    // QMP only says that it failed; why stands in QEMU's log.
    const said = await readLogTail(host.supervisor.instanceDirectory(plan.instance));
    const why = [messageOf(error), ...said].filter((line) => line !== '').join(' / ');
    const message = `QEMU could not load the memory of image ${image.name}: ${why}`;
    throw new StasisError('restore-failed', message, { cause: error, details: failure.details });
  }
}

function methodOf(name: RestoreMethodName): RestoreMethod {
  switch (name) {
    case 'mapped':
      return mapped;
    case 'eager':
      return eager;
    case 'lazy':
      return lazy;
    default:
      return name satisfies never;
  }
}
