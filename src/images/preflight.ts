/**
 * Whether images could be restored, and guests started, by this QEMU or another, and why not: before an upgrade, or a step
 * back. No guest is touched: QEMU is asked what it can do, and the image what it needs.
 */
import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostCheck } from '../api/schemas.ts';
import type { GuestRecord } from '../catalog/guests.ts';
import type { ImageRecord } from '../catalog/images.ts';
import { StasisError, messageOf } from '../errors.ts';
import { checkDevices } from '../guests/check-devices.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import { guestDirectory } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import { resolveAccelerator } from '../qemu/build/accelerator.ts';
import type { QemuBinary } from '../qemu/build/binary.ts';
import { qemuTypes } from '../qemu/build/device-types.ts';
import { featuresOf } from '../qemu/build/features.ts';
import { machineTypes } from '../qemu/build/machine-types.ts';
import { featuresOfMachine, lackingFeatures, type FeatureWord } from '../qemu/build/processor.ts';
import { loadableFormats, loadProblems, untold } from '../qemu/build/vmstate.ts';
import { readMemoryFile } from '../qemu/memory/memory-file.ts';
import { manifestOf } from './load.ts';

type Finding = HostCheck['results'][number];

/** What is in the way, and what should be known though it is not. */
interface Findings {
  readonly reasons: string[];
  readonly remarks: string[];
}

/** Could this guest be started from its disks? */
export async function checkGuest(host: Host, target: QemuBinary, guest: GuestRecord): Promise<Finding> {
  const findings: Findings = { reasons: [], remarks: [] };
  await checkMachine(host, target, storedDefinition(guest), undefined, findings);
  return verdict({ guest: guest.name, image: null, madeBy: null, qemu: target.versionText }, findings);
}

/** Could this image be restored? */
export async function checkImage(host: Host, target: QemuBinary, image: ImageRecord): Promise<Finding> {
  const findings: Findings = { reasons: [], remarks: [] };
  const { definition, guest, qemuVersion, processor } = manifestOf(image);
  if (image.state !== 'ready') findings.reasons.push(`the image is ${image.state}`);
  await checkLoading(target, findings);
  const maker = await makerOf(host, image);
  const saved = processor ?? (maker && (await processorOf(maker, definition)));
  const isMachine = await checkMachine(host, target, definition, saved, findings);
  if (isMachine) await checkStates(host, { target, maker }, image, findings);
  const about = { guest: guest.name, image: image.name, madeBy: qemuVersion, qemu: target.versionText };
  return verdict(about, findings);
}

/**
 * For who is about to restore an image: another QEMU than the one that made it must be able to. The same one is not asked anything.
 * @param build that is to restore it, as in `Definition.qemu`
 * @throws StasisError `qemu-mismatch` with the reasons and the builds of this host that could; those of `QemuBuilds.get`
 */
export async function refuseOtherQemu(
  host: Host,
  guestName: string,
  image: ImageRecord,
  build: string | undefined,
): Promise<void> {
  const target = await host.builds.get(build);
  const { qemuVersion: madeBy } = manifestOf(image);
  if (target.versionText === madeBy) return;
  const { reasons } = await checkImage(host, target, image);
  if (reasons.length === 0) return;
  const possible = await buildsThatCan(host, image);
  throw new StasisError(
    'qemu-mismatch',
    `image ${image.name} of guest ${guestName} was made by QEMU ${madeBy}, and can't be restored by QEMU ${target.versionText}: ${reasons.join('; ')}. ${cureOf(guestName, possible)}`,
    {
      guest: guestName,
      image: image.name,
      details: { madeBy, qemu: target.versionText, binary: target.path, reasons, possible },
    },
  );
}

/** Names of the builds of this host that could restore it; null: the usual one. */
async function buildsThatCan(host: Host, image: ImageRecord): Promise<(string | null)[]> {
  const possible: (string | null)[] = [];
  for (const { name, binary } of await host.builds.available())
    if ((await checkImage(host, binary, image)).reasons.length === 0) possible.push(name);
  return possible;
}

function cureOf(guestName: string, [first]: readonly (string | null)[]): string {
  if (first === undefined)
    return `Install a QEMU that can beside this one, name it in stasis.yaml (\`qemu: {builds: …}\`), and have the guest run by it: \`stasis qemu ${guestName} NAME\``;
  return `Another QEMU of this host can: \`stasis qemu ${guestName} ${first ?? '--usual'}\``;
}

function verdict(
  about: Pick<Finding, 'guest' | 'image' | 'madeBy' | 'qemu'>,
  { reasons, remarks }: Findings,
): Finding {
  const result = reasons.length > 0 ? 'no' : remarks.length > 0 ? 'warning' : 'yes';
  return { ...about, verdict: result, reasons, remarks };
}

/** What all images need of a QEMU. */
async function checkLoading(target: QemuBinary, { reasons, remarks }: Findings): Promise<void> {
  const features = await featuresOf(target);
  if (!features.has('mapped-ram'))
    reasons.push('it does not know the format of images: that came with QEMU 9.0');
  else if (!features.has('memory-file-offset'))
    remarks.push('it restores only eagerly: no mapping of the image');
}

/** @returns whether the machine type is there at all: without it nothing else can be asked */
async function checkMachine(
  host: Host,
  target: QemuBinary,
  definition: Definition,
  saved: readonly FeatureWord[] | undefined,
  { reasons, remarks }: Findings,
): Promise<boolean> {
  const { machine, cpu, accelerator, firmware } = definition;
  const type = (await machineTypes(target)).find(({ name }) => name === machine);
  if (type === undefined) {
    reasons.push(`it has no machine type ${machine}`);
    return false;
  }
  if (type.deprecated)
    remarks.push(`it will not have machine type ${machine} much longer: that is deprecated`);
  if (firmware !== 'bios') await checkFirmware(firmware.code.path, reasons);
  reasons.push(...(await missingDevices(target, definition, remarks)));
  if (!(await canAccelerate(host, target, accelerator, reasons))) return true;
  try {
    const offered = await featuresOfMachine(target, { machine, cpu, accelerator });
    if (saved === undefined) return true;
    const lacking = lackingFeatures(saved, offered);
    if (lacking.length > 0) reasons.push(`its processor lacks what the guest had: ${lacking.join(', ')}`);
  } catch (error) {
    if (!isTold(error)) throw error;
    reasons.push(`it makes no ${machine} with a processor ${cpu} under ${accelerator}: ${messageOf(error)}`);
  }
  return true;
}

async function checkFirmware(path: string, reasons: string[]): Promise<void> {
  try {
    await access(path, constants.R_OK);
  } catch {
    reasons.push(`its firmware ${path} is not there`);
  }
}

async function missingDevices(
  target: QemuBinary,
  definition: Definition,
  remarks: string[],
): Promise<string[]> {
  try {
    checkDevices(definition, await qemuTypes(target));
    return [];
  } catch (error) {
    if (error instanceof StasisError && error.code === 'unsupported') return [error.message];
    if (!isTold(error)) throw error;
    remarks.push('it did not say which devices it has: are its modules beside it?');
    return [];
  }
}

async function canAccelerate(
  host: Host,
  target: QemuBinary,
  accelerator: Definition['accelerator'],
  reasons: string[],
): Promise<boolean> {
  try {
    await resolveAccelerator(accelerator, { binary: target, cacheDirectory: host.paths.cache });
    return true;
  } catch (error) {
    if (!(error instanceof StasisError && error.code === 'unsupported')) throw error;
    reasons.push(error.message);
    return false;
  }
}

/** The very build that made an image, if this host still has it: only that can tell what it may have been. */
async function makerOf({ builds }: Host, image: ImageRecord): Promise<QemuBinary | undefined> {
  const { qemuVersion } = manifestOf(image);
  return (await builds.available()).find(({ binary }) => binary.versionText === qemuVersion)?.binary;
}

/** Of an image of before its processor was recorded: the same QEMU on this host makes the same. */
async function processorOf(
  maker: QemuBinary,
  { machine, cpu, accelerator }: Definition,
): Promise<readonly FeatureWord[] | undefined> {
  try {
    return await featuresOfMachine(maker, { machine, cpu, accelerator });
  } catch (error) {
    if (isTold(error)) return undefined;
    throw error;
  }
}

async function checkStates(
  host: Host,
  { target, maker }: { readonly target: QemuBinary; readonly maker: QemuBinary | undefined },
  image: ImageRecord,
  { reasons, remarks }: Findings,
): Promise<void> {
  const { definition, memoryFile, qemuVersion } = manifestOf(image);
  const file = join(guestDirectory(host.paths.data, image.guest).images, image.id, memoryFile.name);
  try {
    const { states } = await readMemoryFile(file, memoryFile.offset);
    const formats = await loadableFormats(target, definition.machine);
    const origin = maker && (await loadableFormats(maker, definition.machine));
    reasons.push(...loadProblems(states, formats, origin));
    const unknown = origin === undefined ? untold(states, formats) : [];
    if (unknown.length > 0)
      remarks.push(
        `whether it knows the state of ${unknown.join(', ')} can't be said: QEMU ${qemuVersion}, which made it, is not on this host`,
      );
  } catch (error) {
    if (error instanceof StasisError && error.code === 'image-damaged') reasons.push(error.message);
    else remarks.push(`the states of its devices were not compared: ${messageOf(error)}`);
  }
}

/** What QEMU itself had to say against it. */
function isTold(error: unknown): boolean {
  return error instanceof StasisError && ['qemu-failed', 'guest-crashed', 'timeout'].includes(error.code);
}
