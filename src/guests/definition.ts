/**
 * A guest's definition: what the user writes (YAML or JSON), read strictly, and what is pinned from it once and for
 * all, so that an image taken today finds the same machine in five years.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import { closest } from 'fastest-levenshtein';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { DRIVER_NAMES, NAME_PATTERN, type DriverName } from '../api/constants.ts';
import { Policy } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { fromStored } from '../stored.ts';

const strict = { additionalProperties: false } as const;
const OneOf = <const T extends readonly string[]>(...values: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...values] });

const DISK_NAME = '^[A-Za-z0-9][A-Za-z0-9_-]{0,14}$';
/** Slots of the PCI bus set aside for disks and for networks: fixed, so that addresses never move. */
const MAX_VIRTIO_DISKS = 14;
const MAX_SATA_DISKS = 6;
const MAX_NETWORKS = 6;

const DiskInput = Type.Object(
  {
    name: Type.String({ pattern: DISK_NAME }),
    path: Type.String({ minLength: 1 }),
    format: OneOf('qcow2', 'raw', 'vmdk', 'vdi', 'vhdx', 'vpc', 'qed'),
    bus: Type.Optional(OneOf('virtio', 'sata', 'scsi', 'ide')),
    readonly: Type.Optional(Type.Boolean()),
    driver: Type.Optional(OneOf(...DRIVER_NAMES)),
  },
  strict,
);

const NetworkInput = Type.Object(
  {
    type: OneOf('user', 'bridge', 'tap'),
    mac: Type.Optional(Type.String({ pattern: '^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$' })),
    bridge: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,15}$' })),
    tap: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,15}$' })),
  },
  strict,
);

const PolicyInput = Type.Partial(Policy, strict);

const MemoryInput = Type.Object(
  {
    size: Type.Union([Type.String(), Type.Integer()]),
    hugepages: Type.Optional(Type.Union([Type.Boolean(), OneOf('2MiB', '1GiB')])),
  },
  strict,
);

/** What the user writes. */
const DefinitionInput = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    uuid: Type.Optional(Type.String({ pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' })),
    memory: Type.Union([Type.String(), Type.Integer(), MemoryInput]),
    cpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 255 })),
    machine: Type.Optional(Type.String({ pattern: '^[a-z0-9.-]{1,40}$' })),
    cpu: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.,+=-]{1,200}$' })),
    accelerator: Type.Optional(OneOf('auto', 'kvm', 'tcg')),
    firmware: Type.Optional(OneOf('bios', 'uefi')),
    boot: Type.Optional(
      Type.Object(
        {
          kernel: Type.String({ minLength: 1 }),
          initrd: Type.Optional(Type.String({ minLength: 1 })),
          cmdline: Type.Optional(Type.String()),
        },
        strict,
      ),
    ),
    disks: Type.Optional(Type.Array(DiskInput, { maxItems: 20 })),
    networks: Type.Optional(Type.Array(NetworkInput, { maxItems: MAX_NETWORKS })),
    graphics: Type.Optional(OneOf('none', 'vnc')),
    serial: Type.Optional(Type.Boolean()),
    agent: Type.Optional(Type.Boolean()),
    policy: Type.Optional(PolicyInput),
    qemu: Type.Optional(Type.Object({ args: Type.Array(Type.String()) }, strict)),
  },
  strict,
);
type DefinitionInput = Static<typeof DefinitionInput>;

export interface DiskDefinition {
  readonly name: string;
  readonly path: string;
  readonly format: Static<typeof DiskInput>['format'];
  readonly bus: 'virtio' | 'sata' | 'scsi' | 'ide';
  readonly readonly: boolean;
  /** how its layers are made; absent in definitions of before there was a choice, and in disks without layers */
  readonly driver?: DriverName;
}

export interface NetworkDefinition {
  readonly type: 'user' | 'bridge' | 'tap';
  readonly mac: string;
  readonly bridge?: string;
  readonly tap?: string;
}

/** The pinned definition: every choice made, every path absolute. */
export interface Definition {
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  /** size of the huge pages that its memory is made of, when it is */
  readonly hugePageBytes?: number;
  readonly cpus: number;
  /** exact and versioned, such as `pc-q35-10.0` */
  readonly machine: string;
  readonly cpu: string;
  readonly accelerator: 'kvm' | 'tcg';
  readonly firmware: 'bios';
  readonly boot: { readonly kernel: string; readonly initrd?: string; readonly cmdline: string } | null;
  readonly disks: readonly DiskDefinition[];
  readonly networks: readonly NetworkDefinition[];
  readonly graphics: 'none' | 'vnc';
  readonly serial: boolean;
  readonly agent: boolean;
  /** what the guest has of its own: policy.ts says what holds where it has none */
  readonly policy: Partial<Policy>;
  /** id of this life of the guest: it changes when the guest goes back in time or is cloned, so that it reseeds its randomness */
  readonly generation?: string;
  /** the image of another guest that this one was made from: its disks stand on that guest's */
  readonly clone?: { readonly guest: string; readonly image: string };
  readonly qemu: { readonly args: readonly string[] };
}

/** A pinned definition as the catalog keeps it: written by `pinDefinition` and nobody else. */
export function storedDefinition(guest: { readonly definition: string }): Definition {
  return fromStored<Definition>(guest.definition);
}

/** What only the host can answer when a definition is pinned. */
export interface HostChoices {
  resolveMachine(machine: string): Promise<string>;
  resolveAccelerator(wanted: 'auto' | 'kvm' | 'tcg'): Promise<'kvm' | 'tcg'>;
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
  const accelerator = await host.resolveAccelerator(read.accelerator ?? 'auto');
  const definition: Definition = {
    name: read.name,
    uuid: (read.uuid ?? randomUUID()).toLowerCase(),
    ...pinMemory(read.memory),
    cpus: read.cpus ?? 1,
    machine: await host.resolveMachine(read.machine ?? 'q35'),
    cpu: pinCpu(read.cpu ?? 'host-model', accelerator),
    accelerator,
    firmware: 'bios',
    boot: read.boot
      ? {
          kernel: resolve(directory, read.boot.kernel),
          ...(read.boot.initrd === undefined ? {} : { initrd: resolve(directory, read.boot.initrd) }),
          cmdline: read.boot.cmdline ?? '',
        }
      : null,
    disks: (read.disks ?? []).map((disk) => ({
      name: disk.name,
      path: resolve(directory, disk.path),
      format: disk.format,
      bus: disk.bus ?? 'virtio',
      readonly: disk.readonly ?? false,
      ...(disk.driver === undefined ? {} : { driver: disk.driver }),
    })),
    networks: (read.networks ?? []).map((network) => ({
      type: network.type,
      mac: (network.mac ?? randomMac()).toLowerCase(),
      ...(network.bridge === undefined ? {} : { bridge: network.bridge }),
      ...(network.tap === undefined ? {} : { tap: network.tap }),
    })),
    graphics: read.graphics ?? 'none',
    serial: read.serial ?? true,
    agent: read.agent ?? false,
    policy: read.policy ?? {},
    generation: randomUUID(),
    qemu: { args: read.qemu?.args ?? [] },
  };
  checkWhole(definition);
  return definition;
}

function readDefinition(input: unknown): DefinitionInput {
  if (!Value.Check(DefinitionInput, input)) {
    const errors = Value.Errors(DefinitionInput, input).filter(({ keyword }) => keyword !== 'boolean');
    // A key that is misspelt is also one that is missing: the misspelling is what the user wants to hear of.
    const error = errors.find(({ keyword }) => keyword === 'additionalProperties') ?? errors[0];
    throw invalid(error === undefined ? 'it does not fit the schema' : explain(error, input), {
      path: error?.instancePath,
    });
  }
  if (input.firmware === 'uefi') {
    throw new StasisError(
      'unsupported',
      `guest ${input.name}: firmware uefi is not supported yet; use bios`,
      { guest: input.name },
    );
  }
  return input;
}

/** What the parts can't say alone. */
function checkWhole(definition: Definition): void {
  const names = definition.disks.map((disk) => disk.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw invalid(`two disks are called "${twice}"`);
  const noLayers = definition.disks.find(
    ({ driver, readonly, format }) =>
      driver !== undefined && (readonly || (format !== 'qcow2' && format !== 'raw')),
  );
  if (noLayers !== undefined)
    throw invalid(
      `disk ${noLayers.name} has no layers, being ${noLayers.readonly ? 'read-only' : noLayers.format}, and so no driver`,
    );
  const paths = definition.disks.filter((disk) => !disk.readonly).map((disk) => disk.path);
  const samePath = paths.find((path, index) => paths.indexOf(path) !== index);
  if (samePath !== undefined) throw invalid(`two disks use the file ${samePath}`);
  const count = (bus: string) => definition.disks.filter((disk) => disk.bus === bus).length;
  if (count('virtio') > MAX_VIRTIO_DISKS)
    throw invalid(`more than ${MAX_VIRTIO_DISKS} virtio disks; use bus scsi for some`);
  if (count('sata') > MAX_SATA_DISKS) throw invalid(`more than ${MAX_SATA_DISKS} sata disks`);
  const isPc = definition.machine.startsWith('pc-i440fx');
  if (isPc && count('sata') > 0)
    throw invalid(`machine ${definition.machine} has no SATA controller: use bus ide, or machine q35`);
  if (!isPc && count('ide') > 0)
    throw invalid(`machine ${definition.machine} has no IDE controller: use bus sata, or machine pc`);
  if (count('ide') > 4) throw invalid('more than 4 ide disks');
  if (!isPc && !definition.machine.startsWith('pc-q35'))
    throw invalid(`machine ${definition.machine} is not supported: use q35 or pc`);
  for (const network of definition.networks) {
    if (network.type === 'bridge' && network.bridge === undefined)
      throw invalid('a bridge network needs `bridge: NAME`');
    if (network.type === 'tap' && network.tap === undefined) throw invalid('a tap network needs `tap: NAME`');
  }
}

const MEMORY = /^(\d+(?:\.\d+)?)\s*(K|M|G|T|Ki|Mi|Gi|Ti)?B?$/i;
const EXPONENTS: Record<string, number> = { k: 1, m: 2, g: 3, t: 4 };
const MIB = 1024 ** 2;

/**
 * Memory sizes are binary whatever the unit's spelling, as everybody's memory is: `2GiB`, `2G`, `512 MB`; a plain number is bytes.
 * @throws StasisError `invalid-definition`
 */
export function parseMemory(memory: string | number): number {
  const [, amount = '', unit = ''] = MEMORY.exec(String(memory).trim()) ?? [];
  const bytes = Number(amount) * 1024 ** (EXPONENTS[unit.charAt(0).toLowerCase()] ?? 0);
  if (amount === '' || !Number.isSafeInteger(bytes))
    throw invalid(`memory "${memory}" is not a size; write it like 2GiB or 512MiB`);
  if (bytes < 16 * MIB || bytes % MIB !== 0)
    throw invalid(`memory "${memory}" must be whole MiB, and at least 16 MiB`);
  return bytes;
}

const HUGE_PAGE_BYTES = { '2MiB': 2 * MIB, '1GiB': 1024 * MIB } as const;

/** @throws StasisError `invalid-definition` */
function pinMemory(memory: DefinitionInput['memory']): Pick<Definition, 'memoryBytes' | 'hugePageBytes'> {
  const { size, hugepages = false } = typeof memory === 'object' ? memory : { size: memory };
  const memoryBytes = parseMemory(size);
  if (hugepages === false) return { memoryBytes };
  const hugePageBytes = HUGE_PAGE_BYTES[hugepages === true ? '2MiB' : hugepages];
  if (memoryBytes % hugePageBytes !== 0)
    throw invalid(`memory "${size}" is no whole number of huge pages of ${hugePageBytes / MIB} MiB`);
  return { memoryBytes, hugePageBytes };
}

/** An image needs the same CPU when it comes back, so `host-model` becomes a name that QEMU keeps. */
function pinCpu(cpu: string, accelerator: 'kvm' | 'tcg'): string {
  if (cpu !== 'host-model') return cpu;
  return accelerator === 'kvm' ? 'host' : 'max';
}

/** In QEMU's own range, locally administered by assignment. */
export function randomMac(): string {
  return ['52', '54', '00', ...[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(
    ':',
  );
}

type SchemaError = ReturnType<typeof Value.Errors>[number];

function explain(error: SchemaError, input: unknown): string {
  const where = error.instancePath === '' ? '' : `${error.instancePath.slice(1).replaceAll('/', '.')}: `;
  if (error.keyword === 'additionalProperties') {
    const [unknown = ''] = error.params.additionalProperties;
    const known = knownKeys(error.schemaPath);
    return `${where}unknown key "${unknown}"; did you mean "${closest(unknown, known)}"? (known: ${known.join(', ')})`;
  }
  if (error.keyword === 'required')
    return `${where}the key "${error.params.requiredProperties[0]}" is missing`;
  if (error.keyword === 'enum') return `${where}must be one of ${error.params.allowedValues.join(', ')}`;
  if (input === null || typeof input !== 'object')
    return 'a guest definition is a YAML or JSON mapping with at least `name` and `memory`';
  return `${where}${error.message}`;
}

/** The keys that the schema at a path such as `#/properties/disks/items` knows. */
function knownKeys(schemaPath: string): string[] {
  let schema: object = DefinitionInput;
  for (const part of [...schemaPath.split('/').slice(1), 'properties']) {
    const inner: unknown = Reflect.get(schema, part);
    if (typeof inner !== 'object' || inner === null) return [];
    schema = inner;
  }
  return Object.keys(schema);
}

function invalid(message: string, details?: Record<string, unknown>): StasisError {
  return new StasisError('invalid-definition', `the definition is not valid: ${message}`, { details });
}
