/**
 * Is an image what it was when it was taken? Its memory file is walked, each disk's chain of layers is looked at link by link,
 * its media are compared, and what every file holds is compared with the checksum that is recorded of it; where there
 * is none yet, one is recorded, and said so. Nothing is repaired and nothing is written but what was found. If it is asked for, the
 * image is also restored for a trial (trial.ts).
 *
 * An image with damage is `broken` from then on, with the reason, and is never restored. When the damage is gone later,
 * since a disk is mounted again or a file was put back from a backup, the same look finds it `ready`.
 */
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type { Outcome } from '../api/schemas.ts';
import { getGuestByUuid } from '../catalog/guests.ts';
import { getImageById, updateImage, type ImageRecord } from '../catalog/images.ts';
import { StasisError, messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { verifyMemoryFile } from '../qemu/memory/memory-file.ts';
import { differences } from '../storage/file-sum.ts';
import { sumFile } from '../storage/file-sum-process.ts';
import { describeChange, type FileIdentity } from '../storage/identity.ts';
import { fromStored } from '../stored.ts';
import { requireImage } from './names.ts';
import { filesOf, isFixed, recordedSum, recordSum, refreshManifest, type ImageFile } from './image-files.ts';
import { manifestOf } from './load.ts';
import { markLost } from './lost.ts';
import { checkMedium } from './media.ts';
import { checkPattern, discardTrial, planTrial, tryOut, type TrialPlan } from './trial.ts';
import { markUnsound, markVerified, verificationOf } from './verification.ts';

export interface VerifyArgs {
  readonly name?: string;
  readonly boot?: boolean;
  readonly timeLimitSeconds?: number;
  readonly expect?: string;
  readonly reject?: string;
  /** read no faster, at the lowest priority; as fast as it goes when absent: somebody waits for it */
  readonly bytesPerSecond?: number;
}

interface VerifyPlan {
  readonly guest: string;
  readonly image: string;
  readonly bytesPerSecond: number | null;
  /** null when it is not asked for, or can't be since the image is broken already */
  readonly trial: TrialPlan | null;
}

const TRIAL = 'boot';
const TRIAL_SECONDS = 60;
/** What a trial comes to that is a finding. */
const TRIAL_FAILS: readonly string[] = ['restore-failed', 'guest-crashed', 'qemu-failed', 'timeout'];

/** What is damaged, or can't be read, and not the work of looking at it. */
const DAMAGE: readonly string[] = ['image-damaged', 'disk-changed', 'disk-missing'];
/** Ranges told of one file; more of them are counted. */
const RANGES_TOLD = 8;

export function verifyProcedure(host: Host): Procedure<VerifyArgs, VerifyPlan> {
  const { catalog } = host;
  return {
    name: 'verify',
    cancellable: true,
    givesWay: 'uncommitted',

    async plan(args, subject) {
      const guest = await getGuestByUuid(catalog, subject.guest ?? subject.guestName);
      await markLost(host);
      const image = await requireImage(catalog, guest, args.name ?? DEFAULT_IMAGE);
      const { bytesPerSecond = null } = args;
      const trial =
        args.boot === true && image.state === 'ready' ? await trialOf(host, image, args, guest.name) : null;
      return { guest: guest.uuid, image: image.id, bytesPerSecond, trial };
    },

    async run(plan, operation) {
      const image = await getImageById(catalog, plan.image);
      const files = await filesOf(host, image);
      const look = (part: string, file: string | undefined, check: () => Promise<string>) =>
        examine(operation, part, file, check);
      await operation.step('structure', async () => {
        const [memory, ...layers] = files;
        await look('memory file', memory?.path, () => checkMemory(image, memory?.path ?? ''));
        for (const [index, layer] of layers.entries())
          await look(`chain, ${layer.name}`, layer.path, () =>
            checkLayer(host, layer, layers[index + 1], operation.signal),
          );
        await look('media', undefined, () => checkAllMedia(host, image, operation.signal));
      });
      await operation.step('checksums', async () => {
        for (const file of files) await compare(host, plan, file, operation);
      });
      await refreshManifest(host, plan.image);
      const evidence = plan.trial === null ? undefined : await tryImage(host, image, plan.trial, operation);
      await operation.commit(async (transaction) => {
        const found = await getImageById(transaction, plan.image);
        const damage = damageOf(operation.outcomes);
        const at = new Date().toISOString();
        const boot = evidence === undefined ? {} : { bootAt: at, evidence };
        if (damage === undefined) await markVerified(transaction, found, { checksumsAt: at, ...boot }, at);
        else await markUnsound(transaction, found, damage);
        if (found.state !== 'ready' && found.state !== 'broken') return;
        await updateImage(transaction, found.id, {
          state: isBroken(operation.outcomes) ? 'broken' : 'ready',
        });
      });
    },

    /** What it found so far it has written nowhere; checksums that it recorded are right. */
    async undo({ trial }) {
      if (trial !== null) await discardTrial(host, trial);
    },

    async finish(plan, operation) {
      const damage = damageOf(operation.outcomes);
      const { name, verification } = await getImageById(catalog, plan.image);
      const what = `image ${name} of ${operation.guestName}`;
      const lived =
        plan.trial === null
          ? ''
          : `, and came to life: ${verificationOf({ verification }).evidence?.join(', ')}`;
      const fails = isBroken(operation.outcomes) ? 'is broken' : 'did not come to life in a trial';
      await operation.publish({
        type: 'image',
        action: damage === undefined ? 'verified' : isBroken(operation.outcomes) ? 'broken' : 'trial-failed',
        image: name,
        message: damage === undefined ? `${what} is as it was taken${lived}` : `${what} ${fails}: ${damage}`,
      });
      return damage === undefined ? undefined : damaged(`${what} ${fails}`, operation.outcomes);
    },
  };
}

async function trialOf(
  host: Host,
  image: ImageRecord,
  { expect, reject, timeLimitSeconds = TRIAL_SECONDS }: VerifyArgs,
  guestName: string,
): Promise<TrialPlan | null> {
  checkPattern(expect);
  checkPattern(reject);
  const patterns = {
    ...(expect === undefined ? {} : { expect }),
    ...(reject === undefined ? {} : { reject }),
  };
  try {
    return await planTrial(host, image, guestName, { timeLimitMs: timeLimitSeconds * 1000, ...patterns });
  } catch (error) {
    // What is damaged the look at its parts tells, with the place.
    if (isDamage(StasisError.from(error))) return null;
    throw error;
  }
}

/** @returns the evidence that it lives; undefined when there is none, or it isn't worth trying: the outcome tells */
async function tryImage(
  host: Host,
  image: ImageRecord,
  trial: TrialPlan,
  operation: OperationHandle,
): Promise<readonly string[] | undefined> {
  if (damageOf(operation.outcomes) !== undefined) {
    await operation.outcome({ name: TRIAL, outcome: 'skipped', message: 'the image is broken' });
    return undefined;
  }
  let evidence: readonly string[] | undefined;
  try {
    await examine(operation, TRIAL, undefined, async () => {
      evidence = await tryOut(host, image, trial, operation);
      return `restored ${trial.method} as a guest without a network: ${evidence.join('; ')}`;
    });
  } finally {
    await operation.step('discard', () => discardTrial(host, trial));
  }
  return evidence;
}

/** A disk that can't be read, too; but not whatever else can be wrong with this host for a moment. */
function isDamage({ code, message }: StasisError): boolean {
  return DAMAGE.includes(code) || (code === 'storage-failed' && /\bEIO\b|Input\/output error/.test(message));
}

/** One part, with its outcome; only what is no finding about the image is thrown. */
async function examine(
  operation: OperationHandle,
  name: string,
  file: string | undefined,
  check: () => Promise<string>,
): Promise<void> {
  const about = file === undefined ? {} : { file };
  try {
    await operation.outcome({ name, outcome: 'done', message: await check(), ...about });
  } catch (error) {
    const failure = StasisError.from(error);
    const isFinding = isDamage(failure) || (name === TRIAL && TRIAL_FAILS.includes(failure.code));
    if (!isFinding || operation.signal.aborted) throw error;
    await operation.outcome({ name, outcome: 'failed', message: failure.message, ...about });
  }
}

async function checkMemory(image: ImageRecord, path: string): Promise<string> {
  const { definition, memoryBytes, memoryFile } = manifestOf(image);
  const expected = { offset: memoryFile.offset, machineType: definition.machine, memoryBytes };
  try {
    const { blocks, devices } = await verifyMemoryFile(path, expected);
    return `complete: ${blocks.length} blocks of memory, the state of ${devices.length} devices`;
  } catch (error) {
    if (error instanceof StasisError) throw error;
    throw new StasisError('disk-missing', messageOf(error), { cause: error });
  }
}

/** Seal, the link to the layer below, and the file's own bookkeeping. */
async function checkLayer(
  host: Host,
  { layer, seal, disk }: ImageFile,
  below: ImageFile | undefined,
  signal: AbortSignal,
): Promise<string> {
  if (layer === undefined) throw new StasisError('internal', 'no layer');
  const now = await host.drivers.get(layer.driver).identity(layer);
  const change = seal === null ? undefined : describeChange(fromStored<FileIdentity>(seal), now);
  if (change !== undefined)
    throw new StasisError('disk-changed', `somebody else changed ${layer.path}: ${change}`);
  if (layer.format === 'raw') return seal === null ? 'raw' : 'raw, untouched since it was sealed';
  const { path, format } = layer;
  await host.ownership.letReadLayer(layer);
  const header = await readable(path, host.imageTool.info(path, { format, inUse: true, signal }));
  const backing =
    below !== undefined && below.disk === disk && layer.parent !== null ? below.path : undefined;
  if (backing !== undefined && header['backing-filename'] !== backing)
    throw new StasisError(
      'image-damaged',
      `${path} stands on ${header['backing-filename'] ?? 'nothing'}, not on ${backing}`,
    );
  const { corruptions, checkErrors } = await readable(path, host.imageTool.check(path, format, { signal }));
  if (corruptions + checkErrors > 0)
    throw new StasisError(
      'image-damaged',
      `qemu-img check found ${corruptions + checkErrors} errors in ${path}`,
    );
  return backing === undefined ? 'sound' : `sound, stands on ${backing}`;
}

/** What qemu-img can't make sense of is damaged; that somebody holds its lock says nothing. */
async function readable<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { code, message } = StasisError.from(error);
    if (code !== 'storage-failed' || /\block\b/.test(message)) throw error;
    throw new StasisError('image-damaged', `${path}: ${message}`, { cause: error });
  }
}

async function checkAllMedia(host: Host, image: ImageRecord, signal: AbortSignal): Promise<string> {
  const { media = [] } = manifestOf(image);
  const readOnly = media.filter(({ kind }) => kind === 'read-only');
  for (const medium of readOnly) await checkMedium(host, medium, signal);
  if (readOnly.length === 0) return 'none';
  return `${readOnly.map(({ path }) => path).join(', ')}: as when it was taken`;
}

/** What a file holds, beside what is recorded of it. */
async function compare(
  host: Host,
  { bytesPerSecond }: VerifyPlan,
  file: ImageFile,
  operation: OperationHandle,
): Promise<void> {
  const { name, path } = file;
  if (!isFixed(file)) {
    const message = 'not sealed: a guest writes to it, or its save is not finished';
    return operation.outcome({ name, outcome: 'skipped', message, file: path });
  }
  const before = await recordedSum(host, file);
  let ranges: { start: number; end: number }[] = [];
  await examine(operation, name, path, async () => {
    const sum = await sumFile(path, {
      signal: operation.signal,
      bytesPerSecond: bytesPerSecond ?? undefined,
      onProgress: (bytesDone, bytesTotal) => operation.progress(bytesDone, bytesTotal),
    });
    if (before === undefined) {
      // A file that is known to be damaged must not become what later ones are compared with.
      if (operation.outcomes.some((part) => part.file === path && part.outcome === 'failed'))
        return 'no checksum was recorded while it was sound';
      if (!(await recordSum(host, file, sum))) return 'merged with another meanwhile';
      return `nothing to compare with yet: its checksum is recorded now, ${sum.sha256}`;
    }
    ranges = differences({ ...before, pieces: Buffer.from(before.pieces) }, sum);
    if (ranges.length > 0)
      throw new StasisError(
        'image-damaged',
        `${path} is not what it was on ${before.recordedAt}: ${places(ranges)}`,
      );
    return `as on ${before.recordedAt}, ${sum.sha256}`;
  });
  const found = operation.outcomes.find((part) => part.name === name);
  if (ranges.length > 0 && found !== undefined)
    await operation.outcome({ ...found, ranges: ranges.slice(0, RANGES_TOLD) });
}

function places(ranges: readonly { start: number; end: number }[]): string {
  const told = ranges.slice(0, RANGES_TOLD).map(({ start, end }) => `${start}–${end}`);
  const more = ranges.length > RANGES_TOLD ? ` and ${ranges.length - RANGES_TOLD} more places` : '';
  return `it differs in bytes ${told.join(', ')}${more}`;
}

function damageOf(outcomes: readonly Outcome[]): string | undefined {
  const failed = outcomes.filter(({ outcome }) => outcome === 'failed');
  return failed.length === 0
    ? undefined
    : failed.map(({ name, message }) => `${name}: ${message}`).join('; ');
}

/** A guest that doesn't come to life is no proof that its image is another than it was: that alone forbids nothing. */
function isBroken(outcomes: readonly Outcome[]): boolean {
  return outcomes.some(({ name, outcome }) => outcome === 'failed' && name !== TRIAL);
}

function damaged(what: string, outcomes: readonly Outcome[]): StasisError {
  const cure = isBroken(outcomes)
    ? '. It is kept, and not restored; when what is wrong is put right, verify it again'
    : '. It is kept, and can be restored all the same';
  return new StasisError('image-damaged', `${what}: ${damageOf(outcomes)}${cure}`, {
    details: { parts: outcomes },
  });
}
