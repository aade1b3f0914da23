/**
 * A guest's definition: what the user writes (YAML or JSON), read strictly, and what is pinned from it once and for
 * all, so that an image taken today finds the same machine in five years. The parts are in the folder of this name.
 */
import { randomUUID } from 'node:crypto';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { NAME_PATTERN } from '../api/constants.ts';
import { Policy } from '../api/schemas.ts';
import { ScheduleRequest, type Retention } from '../api/schedules.ts';
import type { ScheduleRecord } from '../catalog/schedules.ts';
import { StasisError } from '../errors.ts';
import type { UefiFirmware } from '../qemu/build/firmware.ts';
import { fromStored } from '../stored.ts';
import { BootInput, pinBoot, type Boot } from './definition/boot.ts';
import { DeviceInputs, pinDevices, type Devices } from './definition/devices.ts';
import { checkDisks, DiskInput, pinDisk, VARIABLE_STORE, type DiskDefinition } from './definition/disks.ts';
import { refusal } from './definition/explain.ts';
import { FirmwareInput, pinUefi, type Uefi, type UefiWish } from './definition/firmware.ts';
import {
  checkTopology,
  MachineInputs,
  pinMachineDetails,
  type MachineDetails,
} from './definition/machine.ts';
import { MemoryInput, pinMemory, type Memory } from './definition/memory.ts';
import {
  checkNetwork,
  MAX_NETWORKS,
  NetworkInput,
  pinNetwork,
  type NetworkDefinition,
} from './definition/networks.ts';
import { invalid, OneOf, strict } from './definition/schema.ts';
import { readRetention, RetentionInput, whyNotRetention } from './retention.ts';
import { readSchedules } from './schedules.ts';

export { VARIABLE_STORE };
export type { DiskDefinition, NetworkDefinition, UefiWish };

const PolicyInput = Type.Partial(Policy, strict);

const UUID = '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';

/** What the user writes. */
const DefinitionInput = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    uuid: Type.Optional(Type.String({ pattern: UUID })),
    memory: MemoryInput,
    cpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 255 })),
    machine: Type.Optional(Type.String({ pattern: '^[a-z0-9.-]{1,40}$' })),
    cpu: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.,+=-]{1,2000}$' })),
    ...MachineInputs,
    accelerator: Type.Optional(OneOf('auto', 'kvm', 'tcg')),
    firmware: Type.Optional(FirmwareInput),
    boot: Type.Optional(BootInput),
    disks: Type.Optional(Type.Array(DiskInput, { maxItems: 40 })),
    networks: Type.Optional(Type.Array(NetworkInput, { maxItems: MAX_NETWORKS })),
    ...DeviceInputs,
    serial: Type.Optional(Type.Boolean()),
    agent: Type.Optional(Type.Boolean()),
    tpm: Type.Optional(Type.Boolean()),
    policy: Type.Optional(PolicyInput),
    schedules: Type.Optional(Type.Array(ScheduleRequest, { maxItems: 100 })),
    retention: Type.Optional(RetentionInput),
    labels: Type.Optional(Type.Array(Type.String({ pattern: NAME_PATTERN }), { maxItems: 32 })),
    /** when the guest has had one elsewhere */
    generation: Type.Optional(Type.String({ pattern: UUID })),
    qemu: Type.Optional(
      Type.Object(
        {
          build: Type.Optional(Type.String({ pattern: NAME_PATTERN })),
          args: Type.Optional(Type.Array(Type.String())),
        },
        strict,
      ),
    ),
  },
  strict,
);
export type DefinitionInput = Static<typeof DefinitionInput>;

/** The pinned definition: every choice made, every path absolute. */
export interface Definition extends Memory, MachineDetails, Devices {
  readonly name: string;
  readonly uuid: string;
  readonly cpus: number;
  /** exact and versioned, such as `pc-q35-10.0` */
  readonly machine: string;
  readonly cpu: string;
  readonly accelerator: 'kvm' | 'tcg';
  readonly firmware: 'bios' | UefiFirmware;
  readonly boot: Boot | null;
  readonly disks: readonly DiskDefinition[];
  readonly networks: readonly NetworkDefinition[];
  readonly serial: boolean;
  readonly agent: boolean;
  /** a TPM 2.0; absent in definitions of before there was one */
  readonly tpm?: boolean;
  /** what the guest has of its own: policy.ts says what holds where it has none */
  readonly policy: Partial<Policy>;
  /** who may see it, where not everybody may see all */
  readonly labels?: readonly string[];
  /** id of this life of the guest: it changes when the guest goes back in time or is cloned, so that it reseeds its randomness */
  readonly generation?: string;
  /** the image of another guest that this one was made from: its disks stand on that guest's */
  readonly clone?: { readonly guest: string; readonly image: string };
  readonly qemu: {
    /** name of the QEMU that runs it, of those in the host's settings; absent: the usual one */
    readonly build?: string;
    readonly args: readonly string[];
  };
}

/** A pinned definition as the catalog keeps it: written by `pinDefinition` and nobody else. */
export function storedDefinition(guest: { readonly definition: string }): Definition {
  return fromStored<Definition>(guest.definition);
}

/** What only the host can answer when a definition is pinned. */
export interface HostChoices {
  resolveFirmware(wanted: UefiWish): Promise<Uefi>;
  /** @param build as in `Definition.qemu` */
  resolveMachine(machine: string, build: string | undefined): Promise<string>;
  resolveAccelerator(wanted: 'auto' | 'kvm' | 'tcg', build: string | undefined): Promise<'kvm' | 'tcg'>;
}

/**
 * Reads what a user wrote and pins it.
 * @param directory what relative paths are relative to
 * @throws StasisError `invalid-definition` naming the key, what is wrong with it and the nearest known one;
 *   `unsupported` for what a later version will read
 */
export async function pinDefinition(
  input: unknown,
  directory: string,
  host: HostChoices,
): Promise<Definition> {
  const read = readDefinition(input);
  const build = read.qemu?.build;
  const accelerator = await host.resolveAccelerator(read.accelerator ?? 'auto', build);
  const uuid = (read.uuid ?? randomUUID()).toLowerCase();
  const machine = await host.resolveMachine(read.machine ?? 'q35', build);
  const uefi = await pinUefi(read.firmware, { uuid, machine, directory }, (wanted) =>
    host.resolveFirmware(wanted),
  );
  const definition: Definition = {
    name: read.name,
    uuid,
    ...pinMemory(read.memory),
    cpus: read.cpus ?? 1,
    machine,
    cpu: pinCpu(read.cpu ?? 'host-model', accelerator),
    accelerator,
    firmware: uefi?.firmware ?? 'bios',
    boot: read.boot === undefined ? null : pinBoot(read.boot, directory),
    disks: (read.disks ?? []).map((disk) => pinDisk(disk, directory)),
    networks: (read.networks ?? []).map(pinNetwork),
    ...pinMachineDetails(read),
    ...pinDevices(read),
    serial: read.serial ?? true,
    agent: read.agent ?? false,
    tpm: read.tpm ?? false,
    policy: read.policy ?? {},
    ...(read.labels === undefined ? {} : { labels: [...new Set(read.labels)] }),
    generation: (read.generation ?? randomUUID()).toLowerCase(),
    qemu: { args: read.qemu?.args ?? [], ...(build === undefined ? {} : { build }) },
  };
  checkWhole(definition);
  // Last: the order of the others is the order in which they are booted from.
  return uefi === undefined ? definition : { ...definition, disks: [...definition.disks, uefi.store] };
}

/** What a definition says of the guest that is no part of the machine: it is kept beside the pinned one, and changes. */
export interface Upkeep {
  readonly schedules: readonly ScheduleRecord[];
  /** null: no word of its own */
  readonly retention: Retention | null;
}

/** @throws StasisError `invalid-definition` */
export function readUpkeep(input: unknown, uuid: string): Upkeep {
  const { schedules = [], retention } = readDefinition(input);
  const rules = retention === undefined ? null : readRetention(retention);
  const whyNot = rules === null ? undefined : whyNotRetention(rules);
  if (whyNot !== undefined) throw invalid(`retention: ${whyNot}`);
  return { schedules: readSchedules(uuid, schedules), retention: rules };
}

function readDefinition(input: unknown): DefinitionInput {
  if (!Value.Check(DefinitionInput, input)) throw refusal(DefinitionInput, input);
  const shared = input.disks?.find(({ shareable, readonly }) => shareable === true && readonly !== true);
  if (shared !== undefined) {
    throw new StasisError(
      'unsupported',
      `disk ${shared.name} of guest ${input.name} is shareable: a disk that other guests write to can't be captured at one instant with this one; share it read-only, or give each guest its own`,
      { guest: input.name, details: { disk: shared.name, path: shared.path } },
    );
  }
  return input;
}

/** What the parts can't say alone. */
function checkWhole(definition: Definition): void {
  const { machine, disks, networks } = definition;
  if (!machine.startsWith('pc-i440fx') && !machine.startsWith('pc-q35'))
    throw invalid(`machine ${machine} is not supported: use q35 or pc`);
  checkDisks(disks, definition.emptyDrives ?? [], machine);
  networks.forEach(checkNetwork);
  checkTopology(definition.cpus, definition);
}

/** An image needs the same CPU when it comes back, so `host-model` becomes a name that QEMU keeps. */
function pinCpu(cpu: string, accelerator: 'kvm' | 'tcg'): string {
  return cpu.replace(/^host-model(?=,|$)/, accelerator === 'kvm' ? 'host' : 'max');
}
