/**
 * The QMP commands and events that Stasis uses, typed by hand from QEMU's `qapi/*.json` (10.0; see
 * https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html). Only the members that we send or read are here.
 * Names are QEMU's own, dashes and all. A member that an older QEMU (≥ 9.0) may leave out is optional.
 */

/** A block node, as `query-block` and `query-named-block-nodes` tell of it. */
export interface BlockDeviceInfo {
  readonly file: string;
  readonly 'node-name'?: string;
  readonly ro: boolean;
  readonly drv: string;
  readonly active?: boolean;
  readonly backing_file?: string;
  readonly image: BlockImageInfo;
}

export interface BlockImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly 'virtual-size': number;
  readonly 'actual-size'?: number;
  readonly 'backing-image'?: BlockImageInfo;
}

/** A device of the guest with a medium, or a slot for one. */
export interface BlockInfo {
  /** The drive's id; empty for a device built from `-blockdev` and `-device`. */
  readonly device: string;
  /** The device's QOM path or, when it was given one, its id. */
  readonly qdev?: string;
  readonly inserted?: BlockDeviceInfo;
  readonly locked: boolean;
  readonly removable: boolean;
  readonly 'io-status'?: 'ok' | 'failed' | 'nospace';
}

export interface NamedBlockNode extends BlockDeviceInfo {
  readonly 'node-name': string;
  readonly children?: readonly { readonly child: string; readonly 'node-name': string }[];
}

export interface BlockGraph {
  readonly nodes: readonly {
    readonly id: number;
    readonly type: 'block-backend' | 'block-job' | 'block-driver';
    readonly name: string;
  }[];
  readonly edges: readonly { readonly parent: number; readonly child: number; readonly name: string }[];
}

export type BlockJobType = 'commit' | 'stream' | 'mirror' | 'backup' | 'create' | 'amend';

export interface BlockJobInfo {
  readonly device: string;
  readonly type: BlockJobType;
  readonly len: number;
  readonly offset: number;
  readonly busy: boolean;
  readonly paused: boolean;
  readonly ready: boolean;
  readonly speed: number;
  readonly error?: string;
}

export type JobStatus =
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: JobStatus;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  readonly error?: string;
}

/** The run states that we tell apart; QEMU has a few more, which arrive as plain strings. */
export type RunState =
  | 'running'
  | 'paused'
  | 'prelaunch'
  | 'inmigrate'
  | 'finish-migrate'
  | 'postmigrate'
  | 'shutdown'
  | 'suspended'
  | 'guest-panicked'
  | 'internal-error'
  | 'io-error'
  | 'save-vm'
  | 'restore-vm'
  | 'watchdog'
  | 'debug'
  | 'colo'
  | 'preconfig';

export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'active'
  | 'pre-switchover'
  | 'device'
  | 'completed'
  | 'failed'
  | 'cancelling'
  | 'cancelled'
  | 'wait-unplug'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover'
  | 'postcopy-recover-setup'
  | 'colo';

export interface MigrationInfo {
  readonly status?: MigrationStatus;
  readonly ram?: {
    readonly total: number;
    readonly remaining: number;
    readonly transferred: number;
    readonly normal: number;
    readonly duplicate: number;
    readonly 'page-size': number;
    readonly 'dirty-sync-count': number;
    readonly 'dirty-pages-rate': number;
    readonly mbps: number;
  };
  readonly 'total-time'?: number;
  readonly downtime?: number;
  readonly 'error-desc'?: string;
  readonly 'blocked-reasons'?: readonly string[];
}

/** Capabilities that Stasis turns on and off; `query-migrate-capabilities` lists many more. */
export type MigrationCapability =
  | 'mapped-ram'
  | 'multifd'
  | 'pause-before-switchover'
  | 'events'
  | 'x-ignore-shared'
  | 'background-snapshot'
  | 'postcopy-ram'
  | 'postcopy-preempt';

export interface MigrationCapabilityStatus {
  readonly capability: string;
  readonly state: boolean;
}

export interface MigrationParameters {
  /** Bytes per second. */
  readonly 'max-bandwidth'?: number;
  /** Milliseconds, at most 2,000,000. */
  readonly 'downtime-limit'?: number;
  readonly 'multifd-channels'?: number;
  /** Bytes per second that the last pass is expected to be written at; 0: as measured. */
  readonly 'avail-switchover-bandwidth'?: number;
  /** Since QEMU 9.1. */
  readonly 'direct-io'?: boolean;
}

/** A migration's other end. The structured form: in `file:PATH,offset=N` a comma in the path would be cut at. */
export type MigrationAddress =
  | { readonly transport: 'file'; readonly filename: string; readonly offset: number }
  | { readonly transport: 'socket'; readonly type: 'unix'; readonly path: string };

export interface MigrationChannel {
  readonly 'channel-type': 'main';
  readonly addr: MigrationAddress;
}

export interface MachineInfo {
  readonly name: string;
  readonly alias?: string;
  readonly 'is-default'?: boolean;
  readonly deprecated: boolean;
  readonly 'cpu-max': number;
  readonly 'default-cpu-type'?: string;
  readonly 'default-ram-id'?: string;
}

export interface CpuModel {
  readonly name: string;
  readonly props?: Readonly<Record<string, unknown>>;
}

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export interface PciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  readonly qdev_id: string;
  readonly class_info: { readonly class: number; readonly desc?: string };
  readonly id: { readonly vendor: number; readonly device: number };
}

/** A command, type or event in QEMU's description of itself, which is one list of them. */
export interface SchemaEntity {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly members?: readonly { readonly name: string }[];
}

type Nothing = Readonly<Record<string, never>>;

interface Command<Arguments, Result> {
  readonly arguments: Arguments;
  readonly result: Result;
}

/** Command name → its arguments (`undefined`: none) and its result. */
export interface Commands {
  qmp_capabilities: Command<{ readonly enable?: readonly 'oob'[] }, Nothing>;
  'query-status': Command<undefined, { readonly status: RunState; readonly running: boolean }>;
  'query-uuid': Command<undefined, { readonly UUID: string }>;
  'query-version': Command<undefined, { readonly qemu: QemuVersion; readonly package: string }>;
  'query-machines': Command<undefined, readonly MachineInfo[]>;
  'query-qmp-schema': Command<undefined, readonly SchemaEntity[]>;
  'query-memory-size-summary': Command<
    undefined,
    { readonly 'base-memory': number; readonly 'plugged-memory'?: number }
  >;
  'query-pci': Command<
    undefined,
    readonly { readonly bus: number; readonly devices: readonly PciDevice[] }[]
  >;
  'query-cpu-model-expansion': Command<
    { readonly type: 'static' | 'full'; readonly model: CpuModel },
    { readonly model: CpuModel }
  >;

  /** Children and properties of an object: its children's types are `child<TYPE>`. */
  /** All types that QEMU has or could load, those of devices among them. */
  'qom-list-types': Command<undefined, readonly { readonly name: string }[]>;
  'qom-list': Command<{ readonly path: string }, readonly { readonly name: string; readonly type: string }[]>;
  /** Properties of all objects of a type, without one being made. */
  'qom-list-properties': Command<
    { readonly typename: string },
    readonly { readonly name: string; readonly type: string }[]
  >;
  'qom-get': Command<{ readonly path: string; readonly property: string }, unknown>;

  stop: Command<undefined, Nothing>;
  cont: Command<undefined, Nothing>;
  quit: Command<undefined, Nothing>;
  system_powerdown: Command<undefined, Nothing>;
  system_reset: Command<undefined, Nothing>;
  'announce-self': Command<
    { readonly initial: number; readonly max: number; readonly rounds: number; readonly step: number },
    Nothing
  >;
  /** Forgets the ticks of the hardware clock that the guest has missed. Does nothing where there are none. */
  'rtc-reset-reinjection': Command<undefined, Nothing>;
  /** `frontend-open`: for a channel into the guest, whether a program in the guest has it open. */
  'query-chardev': Command<
    undefined,
    readonly { readonly label: string; readonly filename: string; readonly 'frontend-open': boolean }[]
  >;
  /** Writes what the first display shows to a file. */
  screendump: Command<{ readonly filename: string; readonly format: 'ppm' }, Nothing>;
  'query-cpus-fast': Command<
    undefined,
    readonly { readonly 'cpu-index': number; readonly 'thread-id': number; readonly 'qom-path': string }[]
  >;
  /** What a person would type; the answer is text for one. */
  'human-monitor-command': Command<{ readonly 'command-line': string }, string>;
  pmemsave: Command<{ readonly val: number; readonly size: number; readonly filename: string }, Nothing>;

  'query-block': Command<undefined, readonly BlockInfo[]>;
  'query-named-block-nodes': Command<{ readonly flat?: boolean }, readonly NamedBlockNode[]>;
  /** The whole graph. Marked unstable, but the only one that tells of edges before QEMU 10.1; same shape since 4.0. */
  'x-debug-query-block-graph': Command<undefined, BlockGraph>;
  /** All nodes when none is named; since QEMU 10.0. */
  'blockdev-set-active': Command<{ readonly 'node-name'?: string; readonly active: boolean }, Nothing>;
  'blockdev-add': Command<
    {
      readonly driver: 'qcow2' | 'raw';
      readonly 'node-name': string;
      readonly 'read-only'?: boolean;
      readonly discard?: 'ignore' | 'unmap';
      readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
      readonly cache?: { readonly direct?: boolean; readonly 'no-flush'?: boolean };
      readonly backing?: string | null;
      readonly file: {
        readonly driver: 'file';
        readonly filename: string;
        readonly 'node-name'?: string;
        readonly discard?: 'ignore' | 'unmap';
        readonly aio?: 'threads' | 'native' | 'io_uring';
        readonly cache?: { readonly direct?: boolean; readonly 'no-flush'?: boolean };
      };
    },
    Nothing
  >;
  'blockdev-del': Command<{ readonly 'node-name': string }, Nothing>;
  'change-backing-file': Command<
    { readonly device: string; readonly 'image-node-name': string; readonly 'backing-file': string },
    Nothing
  >;
  transaction: Command<
    {
      readonly actions: readonly {
        readonly type: 'blockdev-snapshot';
        readonly data: { readonly node: string; readonly overlay: string };
      }[];
    },
    Nothing
  >;

  'block-commit': Command<
    {
      readonly 'job-id': string;
      readonly device: string;
      readonly 'top-node'?: string;
      readonly 'base-node': string;
      readonly 'backing-file'?: string;
      readonly speed?: number;
    },
    Nothing
  >;
  'block-stream': Command<
    {
      readonly 'job-id': string;
      readonly device: string;
      readonly 'base-node'?: string;
      readonly 'backing-file'?: string;
      readonly speed?: number;
    },
    Nothing
  >;
  'block-job-set-speed': Command<{ readonly device: string; readonly speed: number }, Nothing>;
  'query-block-jobs': Command<undefined, readonly BlockJobInfo[]>;
  'query-jobs': Command<undefined, readonly JobInfo[]>;
  'job-complete': Command<{ readonly id: string }, Nothing>;
  'job-cancel': Command<{ readonly id: string }, Nothing>;
  'job-dismiss': Command<{ readonly id: string }, Nothing>;

  /** What could be broken off by force: QEMU's own list of what holds connections and files open. */
  'query-yank': Command<
    undefined,
    readonly { readonly type: 'migration' | 'block-node' | 'chardev'; readonly 'node-name'?: string }[]
  >;
  migrate: Command<{ readonly channels: readonly MigrationChannel[] }, Nothing>;
  'migrate-incoming': Command<
    {
      readonly channels: readonly MigrationChannel[];
      /** Since QEMU 9.1. */
      readonly 'exit-on-error'?: boolean;
    },
    Nothing
  >;
  /** `calc-time-unit` since QEMU 9.0 in milliseconds; page-sampling is the only mode that needs nothing of the accelerator. */
  'calc-dirty-rate': Command<
    {
      readonly 'calc-time': number;
      readonly 'calc-time-unit': 'millisecond';
      readonly 'sample-pages': number;
      readonly mode: 'page-sampling';
    },
    Nothing
  >;
  /** `dirty-rate` in MiB per second; absent, or -1, when nothing was measured. */
  'query-dirty-rate': Command<
    undefined,
    { readonly status: 'unstarted' | 'measuring' | 'measured'; readonly 'dirty-rate'?: number }
  >;
  /** Also out of band. The other end in its old form: in a unix socket's path no character has a meaning. */
  'migrate-recover': Command<{ readonly uri: string }, Nothing>;
  'migrate-continue': Command<{ readonly state: 'pre-switchover' }, Nothing>;
  migrate_cancel: Command<undefined, Nothing>;
  'query-migrate': Command<undefined, MigrationInfo>;
  'query-migrate-capabilities': Command<undefined, readonly MigrationCapabilityStatus[]>;
  'migrate-set-capabilities': Command<
    { readonly capabilities: readonly MigrationCapabilityStatus[] },
    Nothing
  >;
  'query-migrate-parameters': Command<undefined, MigrationParameters>;
  'migrate-set-parameters': Command<MigrationParameters, Nothing>;
}

export type CommandName = keyof Commands;

interface BlockJobEvent {
  readonly type: BlockJobType;
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly speed: number;
}

/** Event name → its data. Events of other names are not delivered. */
export interface Events {
  readonly STOP: Nothing;
  readonly RESUME: Nothing;
  readonly RESET: { readonly guest: boolean; readonly reason: string };
  readonly SHUTDOWN: { readonly guest: boolean; readonly reason: string };
  readonly POWERDOWN: Nothing;
  readonly GUEST_PANICKED: { readonly action: string };
  readonly MIGRATION: { readonly status: MigrationStatus };
  readonly MIGRATION_PASS: { readonly pass: number };
  readonly BLOCK_JOB_READY: BlockJobEvent;
  readonly BLOCK_JOB_COMPLETED: BlockJobEvent & { readonly error?: string };
  readonly BLOCK_JOB_CANCELLED: BlockJobEvent;
  readonly BLOCK_JOB_ERROR: {
    readonly device: string;
    readonly operation: 'read' | 'write';
    readonly action: string;
  };
  readonly JOB_STATUS_CHANGE: { readonly id: string; readonly status: JobStatus };
  readonly BLOCK_IO_ERROR: {
    readonly 'node-name'?: string;
    readonly device: string;
    readonly operation: 'read' | 'write';
    readonly action: string;
    readonly nospace?: boolean;
    readonly reason: string;
  };
  /** A program in the guest opened or closed a channel. */
  readonly VSERPORT_CHANGE: { readonly id: string; readonly open: boolean };
  readonly DEVICE_DELETED: { readonly device?: string; readonly path: string };
}

export type EventName = keyof Events;

/** One event, as a union that `event` discriminates. */
export type QmpEvent<N extends EventName = EventName> = {
  [K in N]: {
    readonly event: K;
    readonly data: Events[K];
    /** QEMU's own clock (real time) at the event, in milliseconds with a fraction. */
    readonly timestampMs: number;
  };
}[N];
