/**
 * What the preflight says of images and another QEMU, held against what that QEMU does: each image is loaded by it, whatever was
 * said, and restored by every method when it was said to be possible. Both ways: an upgrade, and a step back.
 *
 * `scripts/build-other-qemu trixie-backports` fetches one, then:
 * `STASIS_OTHER_QEMU=.cache/other-qemu/trixie-backports/qemu-system-x86_64 node --test test/campaign/other-qemu.test.ts`
 */
import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { HostCheck, Image } from '../../src/api/schemas.ts';
import { messageOf, StasisError } from '../../src/errors.ts';
import { commandLine, type ChainLayer } from '../../src/guests/command-line.ts';
import { isLayered } from '../../src/guests/define.ts';
import type { Manifest } from '../../src/images/manifest.ts';
import { ImageTool } from '../../src/qemu/block/image-tool.ts';
import { describeQemu, findQemu, type QemuBinary } from '../../src/qemu/build/binary.ts';
import { verifyMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { killQemu, launchQemu, readLogTail } from '../../src/qemu/process/process.ts';
import { eager } from '../../src/qemu/restore/eager.ts';
import { startTpm } from '../../src/qemu/tpm.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab, type LabGuest } from '../support/lab.ts';

const OTHER = process.env['STASIS_OTHER_QEMU'];
const METHODS = ['mapped', 'lazy', 'eager'] as const;
/** A balloon discards memory: no file can stay as it is below that. */
const BALLOONED = 'devices';
const IMAGE = 'image';

/** Of which both have the machine and the processor, unless they are in question. */
const bare = (extra: Record<string, unknown>, bus = 'virtio') => ({
  bus,
  guest: { system: 'bare', extra: { machine: 'pc-q35-10.0', cpu: 'qemu64', ...extra } } satisfies LabGuest,
});

/** Machines that differ in what another QEMU may not have. One that can't be made, or not be saved, is left out. */
const MACHINES: Readonly<Record<string, { readonly guest: LabGuest; readonly bus: string }>> = {
  plain: bare({ networks: [{ type: 'user' }] }),
  older: bare({ machine: 'pc-q35-7.2', networks: [{ type: 'user', model: 'e1000e' }] }, 'sata'),
  i440fx: bare({ machine: 'pc-i440fx-8.2', networks: [{ type: 'user', model: 'rtl8139' }] }, 'ide'),
  oldest: bare({ machine: 'pc-q35-4.2' }),
  newest: bare({ machine: 'q35' }),
  processor: bare({ cpu: 'max' }),
  nvme: bare({}, 'nvme'),
  [BALLOONED]: bare(
    {
      ...{ graphics: 'vnc', video: { model: 'virtio' }, sound: { model: 'ich9' }, agent: true },
      ...{ rng: {}, balloon: {}, panic: { model: 'pci' }, watchdogs: [{ model: 'itco' }] },
      ...{ inputs: [{ type: 'keyboard', bus: 'usb' }], networks: [{ type: 'user', model: 'vmxnet3' }] },
    },
    'scsi',
  ),
  display: bare({ graphics: 'vnc', video: { model: 'qxl' }, watchdogs: [{ model: 'i6300esb' }] }),
  tpm: bare({ tpm: true }),
  ipmi: bare({ qemu: { args: ['-device', 'ipmi-bmc-sim,id=bmc', '-device', 'isa-ipmi-kcs,bmc=bmc'] } }),
  clock: bare({ qemu: { args: ['-device', 'virtio-rtc-pci'] } }),
  uefi: {
    bus: 'virtio',
    guest: { memory: '256MiB', extra: { machine: 'pc-q35-10.0', cpu: 'qemu64', firmware: 'uefi' } },
  },
};

const options = { skip: OTHER === undefined && 'STASIS_OTHER_QEMU names none', timeout: 3_600_000 };

test('images of this QEMU, for the other', options, async (context) => {
  await compare(context, await findQemu(), await otherQemu());
});

test('images of the other QEMU, for this one', options, async (context) => {
  const maker = await otherQemu();
  if (isTooOld(maker)) return context.skip('it makes none');
  await compare(context, maker, await findQemu());
});

function otherQemu(): Promise<QemuBinary> {
  return describeQemu(resolve(OTHER ?? ''));
}

function isTooOld({ version }: QemuBinary): boolean {
  return version.major < 9;
}

async function compare(context: TestContext, maker: QemuBinary, target: QemuBinary): Promise<void> {
  await using lab = await Lab.create(undefined, { STASIS_QEMU: maker.path });
  const made = await makeImages(context, lab);
  const said = verdictsOf(await lab.client.checkHost({ binary: target.path }));
  for (const guest of made.keys()) {
    const failure = await load(lab, target, await lab.client.getSaveImageInfo(guest, IMAGE));
    context.diagnostic(describe(guest, said.get(guest), failure));
    checkVerdict(guest, said.get(guest), failure);
  }
  if (isTooOld(target)) return;

  await lab.client.start('plain');
  await lab.endDaemon('SIGTERM');
  await lab.startDaemon({ STASIS_QEMU: target.path });
  const { qemuVersion } = await lab.client.createSaveImage('plain', { name: 'later', live: true });
  assert.equal(qemuVersion, maker.versionText, 'a guest that ran on is still what it was');
  await lab.client.stop('plain');
  checkAgreement(said, verdictsOf(await lab.client.checkHost()));

  await lab.endDaemon('SIGTERM');
  await mkdir(lab.paths.config, { recursive: true });
  await writeFile(join(lab.paths.config, 'stasis.yaml'), `qemu: {builds: {maker: ${maker.path}}}\n`);
  await lab.startDaemon({ STASIS_QEMU: target.path });
  for (const [guest, memory] of made) {
    if (said.get(guest)?.verdict === 'no') await refusedThenRestored(lab, guest, memory, maker);
    else await restored(lab, guest, memory, target);
    await lab.client.stop(guest);
  }
}

type Said = HostCheck['results'][number];

/** Of the images alone, by guest. */
function verdictsOf({ results }: HostCheck): Map<string, Said> {
  return new Map(results.flatMap((result) => (result.image === IMAGE ? [[result.guest, result]] : [])));
}

function describe(guest: string, said: Said | undefined, failure: string | undefined): string {
  const why = [...(said?.reasons ?? []), ...(said?.remarks ?? [])].join('; ');
  return `${guest}: said ${said?.verdict} (${why}); ${failure === undefined ? 'it loads' : `it fails: ${failure}`}`;
}

/** QEMU itself does not look at the processor: that it lacks something shows in the guest, later. */
function checkVerdict(guest: string, said: Said | undefined, failure: string | undefined): void {
  const reasons = said?.reasons.filter((reason) => !reason.startsWith('its processor lacks')) ?? [];
  assert.equal(reasons.length > 0, failure !== undefined, describe(guest, said, failure));
}

/** Where the QEMU that made an image is not there, less can be said, and that is said. */
function checkAgreement(before: ReadonlyMap<string, Said>, now: ReadonlyMap<string, Said>): void {
  for (const [guest, said] of before) {
    const { verdict, remarks = [] } = now.get(guest) ?? {};
    const isUntold = verdict === 'warning' && remarks.some((remark) => remark.startsWith('whether it knows'));
    if (!isUntold) assert.equal(verdict, said.verdict, `${guest}: ${remarks.join('; ')}`);
  }
}

async function restored(lab: Lab, guest: string, memory: string, target: QemuBinary): Promise<void> {
  for (const method of METHODS.filter((name) => name === 'eager' || guest !== BALLOONED)) {
    await lab.client.restoreSaveImage(guest, IMAGE, { method });
    assert.equal(await memoryOf(lab, guest), memory, `${guest}, ${method}`);
  }
  await runsBy(lab, guest, target);
  const { qemuVersion } = await lab.client.createSaveImage(guest, { name: 'again', live: true });
  assert.equal(qemuVersion, target.versionText);
  await lab.client.restoreSaveImage(guest, 'again');
  assert.equal(await memoryOf(lab, guest), memory, `${guest}, saved again`);
}

async function refusedThenRestored(
  lab: Lab,
  guest: string,
  memory: string,
  maker: QemuBinary,
): Promise<void> {
  for (const request of [{}, { asNewGuest: 'clone' }]) {
    await assert.rejects(lab.client.restoreSaveImage(guest, IMAGE, request), (error: StasisError) => {
      assert.equal(error.code, 'qemu-mismatch');
      assert.match(error.message, new RegExp(`stasis qemu ${guest} maker`));
      return true;
    });
  }
  await lab.client.setQemu(guest, 'maker');
  await lab.client.restoreSaveImage(guest, IMAGE);
  assert.equal(await memoryOf(lab, guest), memory, `${guest}, by what made it`);
  await runsBy(lab, guest, maker);
}

async function memoryOf(lab: Lab, guest: string): Promise<string> {
  await using witness = await lab.witness(guest);
  const { checksum, errors } = await witness.checksum();
  assert.equal(errors, 0);
  assert.equal((await witness.status()).mismatches, 0);
  return checksum;
}

async function runsBy(lab: Lab, guest: string, { versionText }: QemuBinary): Promise<void> {
  const { qemu } = await lab.client.getGuest(guest);
  assert.equal(qemu.version, versionText);
}

/** @returns for each guest the checksum of its memory */
async function makeImages(context: TestContext, lab: Lab): Promise<Map<string, string>> {
  const made = new Map<string, string>();
  for (const [name, { guest, bus }] of Object.entries(MACHINES)) {
    try {
      const disks = [{ name: 'disk0', ...(await lab.makeDisk(name, 64)), bus }];
      await lab.defineOn(name, disks, guest);
      await lab.client.start(name);
      await using witness = await lab.witness(name);
      const { checksum } = await witness.fill(made.size + 1, 4);
      await lab.client.createSaveImage(name, { name: IMAGE, live: true });
      await lab.client.stop(name);
      made.set(name, checksum);
    } catch (error) {
      if (
        !(
          error instanceof StasisError &&
          ['unsupported', 'not-capturable', 'qemu-failed'].includes(error.code)
        )
      )
        throw error;
      context.diagnostic(`${name} is left out: ${error.message}`);
    }
  }
  return made;
}

/** @returns why that QEMU can't load the image; undefined: it can */
async function load(lab: Lab, binary: QemuBinary, image: Image): Promise<string | undefined> {
  const runDirectory = join(lab.home, 'other');
  await lab.recordsWritten();
  const manifest = fromStored<Manifest>(
    await readFile(join(dirname(image.memoryFile), 'manifest.json'), 'utf8'),
  );
  const { definition, memoryFile, memoryBytes } = manifest;
  await mkdir(runDirectory, { mode: 0o700 });
  const memory = await verifyMemoryFile(image.memoryFile, {
    ...{ offset: memoryFile.offset, machineType: definition.machine, memoryBytes },
  });
  try {
    if (definition.tpm === true)
      await startTpm(runDirectory, join(runDirectory, 'tpm'), AbortSignal.timeout(60_000));
    const chains = await scratchDisks(runDirectory, manifest);
    const args = [...commandLine(definition, { chains }), '-incoming', 'defer'];
    const process = await launchQemu({ binary: binary.path, args, runDirectory });
    try {
      await eager.load(process, { file: image.memoryFile, memory, signal: AbortSignal.timeout(60_000) });
    } finally {
      await process[Symbol.asyncDispose]();
    }
    return undefined;
  } catch (error) {
    return `${messageOf(error)} ${(await readLogTail(runDirectory)).join(' / ')}`;
  } finally {
    await killQemu(runDirectory);
    await rm(runDirectory, { recursive: true });
  }
}

/** Loading reads no disk: empty ones will do. */
async function scratchDisks(
  directory: string,
  { definition, disks }: Manifest,
): Promise<Map<string, ChainLayer[]>> {
  const images = new ImageTool((await findQemu()).imageToolPath);
  const chains = new Map<string, ChainLayer[]>();
  for (const { name } of definition.disks.filter(isLayered)) {
    const path = join(directory, `${name}.qcow2`);
    const { sizeBytes = 0 } = disks.find((disk) => disk.name === name) ?? {};
    await images.createDisk({ path, format: 'qcow2', virtualSizeBytes: sizeBytes });
    chains.set(name, [{ id: name, path, format: 'qcow2', isDevice: false }]);
  }
  return chains;
}
