/**
 * Saving a guest: memory, device state and all disks at one instant.
 *
 * A stopping save pins the heads as they are: nothing is copied and no layer is made, the guest just never writes to
 * them again. A live save takes all disks in the pause in which the last of the memory is written: by copies of the
 * heads, or by a switch to new ones, whereupon what the heads were until then belongs to the image (capture-disks.ts).
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DEFAULT_IMAGE, type LiveMethod } from '../api/constants.ts';
import { insertCapture } from '../catalog/captures.ts';
import type { Catalog } from '../catalog/database.ts';
import { getGuestByUuid, setCurrentImage } from '../catalog/guests.ts';
import { findImage, getImageById, insertImage } from '../catalog/images.ts';
import { settleRun } from '../catalog/schedules.ts';
import { StasisError } from '../errors.ts';
import { nodeName, plainNodeName } from '../guests/command-line.ts';
import { isLayered, isNotCaptured } from '../guests/define.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import { guestDirectory, headIds } from '../guests/disks.ts';
import { residentGuestBytes } from '../guests/host-memory.ts';
import { thawIfFrozen } from '../guests/frozen.ts';
import type { Host } from '../guests/host.ts';
import { Quiesce, quiesceFailed, whyNotQuiesce, type QuiesceWish } from '../guests/quiesce.ts';
import { newId } from '../ids.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { background } from '../qemu/capture/background.ts';
import { NotConverging, precopy } from '../qemu/capture/precopy.ts';
import { stopped } from '../qemu/capture/stopped.ts';
import {
  recoverCapture,
  type CaptureMethodName,
  type CaptureRequest,
  type CaptureResult,
} from '../qemu/capture/capture.ts';
import { verifyMemoryFile } from '../qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../qemu/migration.ts';
import { captureBlockers } from '../qemu/capture/migration-blockers.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { findTpmProcesses } from '../qemu/process/process-scan.ts';
import { processorFeatures } from '../qemu/build/processor.ts';
import { makeDirectory, syncFile } from '../storage/durable.ts';
import {
  captureOf,
  capturedLayers,
  giveUpDisks,
  planDisks,
  prepareDisks,
  recordDisks,
  sealPinned,
  settleDisks,
  takeDisks,
  type DiskCapture,
  type PlannedDisks,
} from './capture-disks.ts';
import { assess, choose, type CaptureChoice, type Wish } from './choose-capture.ts';
import { collect } from './collect.ts';
import { dropImage, forget } from './delete.ts';
import { MEMORY_FILE, type Manifest } from './manifest.ts';
import { recordMedia } from './media.ts';
import { checkImageName } from './names.ts';
import { refuseProtected } from './protect.ts';
import { takeScreen } from './screen.ts';
import { refuseWithoutSpace, saveNeeds } from './space.ts';
import { refuseFailedTpm } from './tpm-trial.ts';

export interface SaveArgs {
  readonly name?: string;
  readonly live?: boolean;
  readonly description?: string;
  /** of a live save: how, when the user insists on it, and how long the guest may stand still */
  readonly method?: LiveMethod;
  readonly maxPauseMs?: number;
  readonly quiesce?: QuiesceWish;
  /** which schedule wants it, and the time that it is the run of */
  readonly schedule?: ScheduledBy;
}

interface ScheduledBy {
  readonly name: string;
  readonly dueAt: string;
}

interface SavePlan extends PlannedDisks {
  readonly guest: string;
  readonly image: string;
  readonly name: string;
  readonly live: boolean;
  readonly description: string;
  readonly createdAt: string;
  readonly wasRunning: boolean;
  /** to bring its file systems to rest; absent in plans of before that could be */
  readonly quiesce?: QuiesceWish;
  /** it was saved or restored with frozen file systems, and nobody has thawed them yet */
  readonly isFrozen?: boolean;
  /** what the user insists on, of a live save */
  readonly wish: Wish;
  /** the default image that this one takes the place of */
  readonly replaces: string | null;
  readonly schedule?: ScheduledBy;
  /** the instance that its TPM is tried as, when it has one; absent in plans of before that was done */
  readonly trial?: string;
}

export function saveProcedure(host: Host): Procedure<SaveArgs, SavePlan> {
  const { catalog, supervisor } = host;

  return {
    name: 'save',
    cancellable: true,

    async plan(args, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      const name = checkImageName(args.name ?? DEFAULT_IMAGE);
      const existing = await findImage(catalog, guest.uuid, name);
      if (existing !== undefined && name !== DEFAULT_IMAGE) {
        throw new StasisError(
          'image-exists',
          `guest ${guest.name} already has an image "${name}"; delete it first, or choose another name`,
        );
      }
      if (existing !== undefined) refuseProtected(existing, guest.name, 'replaced');
      const process = supervisor.get(guest.uuid, guest.name);
      const { qmp } = process;
      const definition = storedDefinition(guest);
      const live = args.live ?? false;
      const heads = await headIds(catalog, guest.uuid);
      await refuseUncapturable(process, definition, heads);
      const planned = live ? await planDisks(host, definition, heads) : { heads: [], copies: [] };
      const memoryBytes = await residentGuestBytes(process, definition);
      await refuseWithoutSpace(host, 'the save', saveNeeds(host, guest.uuid, memoryBytes, planned.heads));
      const wasRunning = (await qmp.execute('query-status')).status === 'running';
      const { quiesce = false } = args;
      const whyNot = whyNotQuiesce(quiesce, definition, wasRunning);
      if (quiesce === 'require' && whyNot !== undefined) throw quiesceFailed(whyNot);
      return {
        guest: guest.uuid,
        image: newId(),
        name,
        live,
        description: args.description ?? '',
        createdAt: new Date().toISOString(),
        wasRunning,
        quiesce,
        isFrozen: guest.frozen === 1,
        wish: { method: args.method, maxPauseMs: args.maxPauseMs },
        replaces: existing?.id ?? null,
        ...(args.schedule === undefined ? {} : { schedule: args.schedule }),
        ...(definition.tpm === true ? { trial: newId() } : {}),
        ...planned,
      };
    },

    async run(plan, operation) {
      const process = supervisor.get(plan.guest, operation.guestName);
      const { qmp } = process;
      // Of a guest that was restored lazily a moment ago: what hasn't arrived can't be captured.
      await operation.step('await-memory', () =>
        supervisor.memoryArrived(plan.guest, {
          signal: operation.signal,
          onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
        }),
      );
      const choice =
        plan.live && plan.wasRunning
          ? await operation.step('predict', () => chooseFor(host, plan, process, operation.signal))
          : null;
      const switched = choice?.switched.map(({ disk }) => disk);
      const disks = captureOf(plan, await headIds(catalog, plan.guest), switched);
      await tellSwitched(choice, operation);
      const definition = storedDefinition(await getGuestByUuid(catalog, plan.guest));
      await operation.step('prepare', async () => {
        await makeDirectory(imageDirectory(host, plan));
        await prepareDisks(host, qmp, disks, definition, operation.signal);
      });

      const media = definition.disks.some(isNotCaptured)
        ? await operation.step('media', () => recordMedia(host, definition, operation.signal))
        : [];

      const processor = await processorFeatures(qmp);

      // A background capture holds what was at its beginning, any other what is at its end.
      const screen = () => takeScreen(host, plan.guest, imageDirectory(host, plan), operation);
      const screenBefore = choice?.method === 'background' ? await screen() : undefined;
      const { captured, quiesce } = await operation.step('capture', () =>
        captureQuiesced(host, plan, process, (quiesced) =>
          capture(host, plan, choice, disks, quiesced, operation),
        ),
      );
      for (const warning of quiesce.warnings) await operation.warn(warning);
      const screenAfter = screenBefore === undefined ? await screen() : undefined;
      const described = await operation.step('verify', () =>
        describe(host, plan, choice, captured, disks, operation),
      );
      const manifest = {
        ...described,
        qemuVersion: qmp.versionText,
        processor,
        media,
        screen: screenBefore ?? screenAfter ?? null,
        quiesce: { ...quiesce.report, isInMemory: quiesce.report.isInMemory || plan.isFrozen === true },
      };
      await tellOverrun(manifest, operation);

      await operation.commit(async (transaction) => {
        if (plan.replaces !== null)
          await dropImage(transaction, await getImageById(transaction, plan.replaces));
        const { currentImage } = await getGuestByUuid(transaction, plan.guest);
        await insertImage(transaction, {
          id: plan.image,
          guest: plan.guest,
          name: plan.name,
          state: 'ready',
          parent: currentImage,
          createdAt: plan.createdAt,
          live: plan.live ? 1 : 0,
          memoryBytes: manifest.memoryBytes,
          description: plan.description,
          verifiedAt: null,
          restoreMethod: null,
          schedule: plan.schedule?.name ?? null,
          manifest: JSON.stringify(manifest),
        });
        await recordDisks(transaction, plan, disks);
        await setCurrentImage(transaction, plan.guest, plan.image);
        if (choice !== null) await remember(transaction, plan, choice, captured);
        if (plan.schedule !== undefined)
          await settleRun(
            transaction,
            { guest: plan.guest, schedule: plan.schedule.name, dueAt: plan.schedule.dueAt },
            { state: 'done', image: plan.name, message: `saved as ${plan.name}` },
          );
      });
    },

    async undo(plan, operation) {
      const process = await supervisor.findAlive(plan.guest);
      if (process !== undefined) await recoverCapture(process.qmp, { wasRunning: plan.wasRunning });
      const thawed = await thawIfFrozen(host, plan.guest);
      if (thawed?.outcome === 'failed') await operation.warn(thawed.message);
      if (plan.trial !== undefined) await supervisor.discard(plan.trial);
      // First of all this makes room: the rest writes to the catalog, and the disk may be full.
      await rm(imageDirectory(host, plan), { recursive: true, force: true });
      if (!operation.reached('prepare')) return;
      await giveUpDisks(host, plan, process?.qmp, operation);
      await collect(host, plan.guest, operation);
    },

    async finish(plan, operation) {
      await operation.publish({
        type: 'image',
        action: 'created',
        image: plan.name,
        message: `${operation.guestName} saved as ${plan.name}`,
      });
      if (plan.live) {
        await operation.step('seal', () => sealPinned(host, plan.image));
      } else {
        await operation.step('stop-guest', () => supervisor.end(plan.guest));
      }
      if (plan.replaces !== null)
        await operation.step('drop-replaced', () => forget(host, plan.guest, plan.replaces ?? ''));
      await collect(host, plan.guest, operation);
    },
  };
}

function imageDirectory({ paths }: Host, { guest, image }: SavePlan): string {
  return join(guestDirectory(paths.data, guest).images, image);
}

/** Looks at the guest and says how it will be captured. @throws StasisError `pause-too-long`, `unsupported` */
async function chooseFor(
  host: Host,
  plan: SavePlan,
  process: QemuProcess,
  signal: AbortSignal,
): Promise<CaptureChoice> {
  const guest = await getGuestByUuid(host.catalog, plan.guest);
  const about = { uuid: guest.uuid, definition: storedDefinition(guest) };
  return choose(await assess(host, about, process, signal), plan.wish, guest.name);
}

/** Around the capture: the guest is frozen by it, and thawed whatever becomes of it. */
async function captureQuiesced(
  host: Host,
  plan: SavePlan,
  process: QemuProcess,
  work: (quiesce: Quiesce) => Promise<CaptureResult>,
): Promise<{ readonly captured: CaptureResult; readonly quiesce: Quiesce }> {
  const { quiesce: wish = false } = plan;
  const definition = storedDefinition(await getGuestByUuid(host.catalog, plan.guest));
  const skipped = whyNotQuiesce(wish, definition, plan.wasRunning);
  await using quiesce = new Quiesce(host, plan.guest, process, { isRequired: wish === 'require', skipped });
  return { captured: await work(quiesce), quiesce };
}

/** Writes the memory; in the pause of a live save all disks are taken. */
async function capture(
  host: Host,
  plan: SavePlan,
  choice: CaptureChoice | null,
  disks: DiskCapture,
  quiesce: Quiesce,
  operation: OperationHandle,
): Promise<CaptureResult> {
  const { qmp } = host.supervisor.get(plan.guest, operation.guestName);
  const freeze = async () => {
    await quiesce.freeze(operation.signal);
    await operation.failpoint('quiesce:frozen');
  };
  const whenLive = quiesce.isWanted ? { onStopping: freeze, onResumed: () => quiesce.thaw() } : {};
  if (!plan.live && plan.wasRunning) {
    if (quiesce.isWanted) await freeze();
    await qmp.execute('stop');
  }
  const file = join(imageDirectory(host, plan), MEMORY_FILE);
  const makeFile = () => host.ownership.makeEmpty(file);
  await makeFile();
  const request: CaptureRequest = {
    qmp,
    file,
    makeFile,
    ...(plan.live ? whenLive : {}),
    signal: AbortSignal.any([operation.signal, quiesce.signal]),
    onProgress: ({ bytesDone, bytesTotal }) => operation.progress(bytesDone, bytesTotal),
    onPaused: async () => {
      quiesce.standsStill();
      if (plan.live) await takeDisks(host, qmp, disks, operation);
    },
  };
  return plan.live ? captureLive(request, choice, operation) : stopped.capture(request);
}

/** By the chosen method; when precopy finds the guest too busy for it, by the other one, or not at all. */
async function captureLive(
  request: CaptureRequest,
  choice: CaptureChoice | null,
  operation: OperationHandle,
): Promise<CaptureResult> {
  if (choice?.method === 'background') return background.capture(request);
  try {
    return await precopy.capture({ ...request, lastPassMs: choice?.lastPassMs ?? undefined });
  } catch (error) {
    if (!(error instanceof NotConverging)) throw error;
    await rm(request.file, { force: true });
    await request.makeFile?.();
    if (choice !== null && choice.fallback !== null) {
      await operation.warn(`${error.message}; it was captured in the background instead`);
      return background.capture(request);
    }
    throw new StasisError(
      'pause-too-long',
      `guest ${operation.guestName} can't be saved live within the pause that is allowed: ${error.message}; allow more, or save it when it does less`,
      { details: error.details, cause: error },
    );
  }
}

/** A disk is not taken as it usually is. */
async function tellSwitched(choice: CaptureChoice | null, operation: OperationHandle): Promise<void> {
  for (const { disk, driver, copyMs } of choice?.switched ?? [])
    await operation.warn(
      `disk ${disk} got an overlay this time: its ${driver} copy would take ${Math.ceil(copyMs)} ms of pause, and there are ${Math.max(0, Math.floor(choice?.copyBudgetMs ?? 0))} ms for it`,
    );
}

/** What was promised and not kept is said. */
async function tellOverrun({ pause }: Manifest, operation: OperationHandle): Promise<void> {
  if (pause === undefined || pause.maxMs === null || pause.parts === null) return;
  const { pauseMs } = pause.parts;
  if (pauseMs > pause.maxMs)
    await operation.warn(
      `the guest stood still for ${Math.ceil(pauseMs)} ms, longer than the ${pause.maxMs} ms that were allowed`,
    );
}

/** What this capture teaches about the next. Part of the commit. */
async function remember(
  transaction: Catalog,
  { guest, createdAt }: SavePlan,
  choice: CaptureChoice,
  { method, pause, bytesPerSecond }: CaptureResult,
): Promise<void> {
  if (pause === undefined || method === 'stopped') return;
  await insertCapture(transaction, {
    guest,
    at: createdAt,
    method,
    dirtyBytesPerSecond: choice.dirtyBytesPerSecond,
    ...expectationOf(choice, method),
    pauseMs: pause.pauseMs,
    bytesPerSecond,
  });
}

/** What was expected of the method that it was in the end. */
function expectationOf(
  choice: CaptureChoice,
  method: CaptureMethodName,
): { readonly modelMs: number; readonly predictedMs: number } {
  const { modelMs, predictedMs } = (method === choice.method ? undefined : choice.fallback) ?? choice;
  return { modelMs, predictedMs };
}

/** Reads the memory file back before anything is promised, and says what the image is. */
async function describe(
  host: Host,
  plan: SavePlan,
  choice: CaptureChoice | null,
  captured: CaptureResult,
  disks: DiskCapture,
  operation: OperationHandle,
): Promise<Omit<Manifest, 'screen' | 'quiesce' | 'media' | 'qemuVersion'>> {
  const guest = await getGuestByUuid(host.catalog, plan.guest);
  const definition = storedDefinition(guest);
  const path = join(imageDirectory(host, plan), MEMORY_FILE);
  const memory = await verifyMemoryFile(path, {
    offset: STREAM_OFFSET,
    machineType: definition.machine,
    memoryBytes: definition.memoryBytes,
  });
  await host.ownership.letRead(path, 'ours');
  await syncFile(path);
  if (plan.trial !== undefined) await refuseFailedTpm(host, plan.trial, { path, memory }, operation);
  await settleDisks(host, disks);
  const { blocks } = await stat(path);
  return {
    version: 1,
    id: plan.image,
    name: plan.name,
    guest: { name: guest.name, uuid: guest.uuid },
    createdAt: plan.createdAt,
    live: plan.live,
    description: plan.description,
    ...(plan.schedule === undefined ? {} : { schedule: plan.schedule.name }),
    method: captured.method,
    pauseMs: captured.pause?.pauseMs ?? null,
    pause: {
      predictedMs: choice === null ? null : expectationOf(choice, captured.method).predictedMs,
      maxMs: plan.wish.maxPauseMs ?? null,
      parts: captured.pause ?? null,
    },
    bytesWritten: captured.bytesWritten,
    saveMs: Date.now() - Date.parse(plan.createdAt),
    memoryBytes: definition.memoryBytes,
    memoryFile: {
      name: MEMORY_FILE,
      offset: STREAM_OFFSET,
      storedBytes: blocks * 512,
      mappable: true,
    },
    guestWasPaused: !plan.wasRunning,
    devices: memory.devices,
    definition,
    disks: (await capturedLayers(host.catalog, disks)).map(({ disk, layer }) => ({
      name: disk,
      sizeBytes: layer.sizeBytes,
      takenBy: disks.copies.some((copy) => copy.disk === disk) ? 'copy' : plan.live ? 'switch' : 'stop',
      layer: { id: layer.id, path: layer.path, format: layer.format },
    })),
  };
}

/** @throws StasisError `not-capturable` naming the disk or device and the reason, before the guest is touched */
async function refuseUncapturable(
  { qmp, runDirectory }: QemuProcess,
  definition: Definition,
  heads: readonly { layer: string }[],
): Promise<void> {
  const disk = definition.disks.find((candidate) => !isNotCaptured(candidate) && !isLayered(candidate));
  if (disk !== undefined) {
    throw new StasisError(
      'not-capturable',
      `disk ${disk.name} (${disk.path}) can't be captured: ${disk.format} files carry no overlay; convert it to qcow2 with \`qemu-img convert\`, make it readonly, or exclude it from images (capture: false)`,
      {
        details: { disk: disk.name, path: disk.path, reason: `format ${disk.format}` },
      },
    );
  }
  if (definition.tpm === true && (await findTpmProcesses(runDirectory)).length === 0) {
    throw new StasisError(
      'not-capturable',
      "this guest can't be saved: swtpm, the process that is its TPM, has ended, and its state with it; restore an image, or stop and start the guest",
      { details: { reason: 'the TPM has ended' } },
    );
  }
  const excluded = definition.disks.filter(isNotCaptured).map(plainNodeName);
  const known = new Set([...heads.map(({ layer }) => nodeName(layer)), ...excluded]);
  const [blocker] = await captureBlockers(qmp, known);
  if (blocker !== undefined) {
    const cure =
      blocker.device === undefined ? 'remove that device' : 'make it a disk of the definition, or read-only';
    throw new StasisError('not-capturable', `this guest can't be saved: ${blocker.reason}; ${cure}`, {
      details: { ...blocker },
    });
  }
}
