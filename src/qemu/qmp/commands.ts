/**
 * The QMP commands and events that Stasis uses, typed by hand from QEMU's `qapi/*.json` (10.0; see
 * https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html). Only the members that we send or read are here.
 * Names are QEMU's own, dashes and all. What is read of the answers is in results.ts.
 */
import type { JobStatus, ReadEvents, Results } from './results.ts';

export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: JobStatus;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  readonly error?: string;
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

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

type Nothing = Readonly<Record<string, never>>;

interface Command<Arguments, Result> {
  readonly arguments: Arguments;
  readonly result: Result;
}

type Query<C extends keyof Results, Arguments = undefined> = Command<Arguments, Results[C]>;

/** Command name → its arguments (`undefined`: none) and its result. */
export interface Commands {
  qmp_capabilities: Command<{ readonly enable?: readonly 'oob'[] }, Nothing>;
  'query-status': Query<'query-status'>;
  'query-uuid': Query<'query-uuid'>;
  'query-version': Command<undefined, { readonly qemu: QemuVersion; readonly package: string }>;
  'query-machines': Query<'query-machines'>;
  'query-qmp-schema': Query<'query-qmp-schema'>;
  'qom-list-types': Query<'qom-list-types'>;
  'qom-list': Query<'qom-list', { readonly path: string }>;
  'qom-list-properties': Query<'qom-list-properties', { readonly typename: string }>;
  'qom-get': Query<'qom-get', { readonly path: string; readonly property: string }>;

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
  'query-chardev': Query<'query-chardev'>;
  /** Writes what the first display shows to a file. */
  screendump: Command<{ readonly filename: string; readonly format: 'ppm' }, Nothing>;
  'query-cpus-fast': Query<'query-cpus-fast'>;
  /** What a person would type; the answer is text for one. For what QMP has no command for. */
  'human-monitor-command': Query<'human-monitor-command', { readonly 'command-line': string }>;
  pmemsave: Command<{ readonly val: number; readonly size: number; readonly filename: string }, Nothing>;

  'query-block': Query<'query-block'>;
  'query-named-block-nodes': Query<'query-named-block-nodes', { readonly flat?: boolean }>;
  /** The whole graph. Marked unstable, but the only one that tells of edges before QEMU 10.1; same shape since 4.0. */
  'x-debug-query-block-graph': Query<'x-debug-query-block-graph'>;
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
      readonly 'auto-finalize'?: boolean;
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
      readonly 'auto-finalize'?: boolean;
    },
    Nothing
  >;
  'query-block-jobs': Query<'query-block-jobs'>;
  'query-jobs': Command<undefined, readonly JobInfo[]>;
  'job-complete': Command<{ readonly id: string }, Nothing>;
  'job-finalize': Command<{ readonly id: string }, Nothing>;
  'job-cancel': Command<{ readonly id: string }, Nothing>;
  'job-dismiss': Command<{ readonly id: string }, Nothing>;

  /** What could be broken off by force: QEMU's own list of what holds connections and files open. */
  'query-yank': Query<'query-yank'>;
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
  'query-dirty-rate': Query<'query-dirty-rate'>;
  /** Also out of band. The other end in its old form: in a unix socket's path no character has a meaning. */
  'migrate-recover': Command<{ readonly uri: string }, Nothing>;
  'migrate-continue': Command<{ readonly state: 'pre-switchover' }, Nothing>;
  migrate_cancel: Command<undefined, Nothing>;
  'query-migrate': Query<'query-migrate'>;
  'query-migrate-capabilities': Query<'query-migrate-capabilities'>;
  'migrate-set-capabilities': Command<
    { readonly capabilities: readonly MigrationCapabilityStatus[] },
    Nothing
  >;
  'query-migrate-parameters': Query<'query-migrate-parameters'>;
  'migrate-set-parameters': Command<MigrationParameters, Nothing>;
}

export type CommandName = keyof Commands;

/** Event name → its data. Events of other names are not delivered. */
export interface Events extends ReadEvents {
  readonly STOP: Nothing;
  readonly RESUME: Nothing;
  readonly RESET: Nothing;
  readonly SHUTDOWN: Nothing;
  readonly GUEST_PANICKED: Nothing;
  readonly MIGRATION_PASS: Nothing;
  readonly BLOCK_IO_ERROR: Nothing;
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
