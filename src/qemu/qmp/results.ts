/**
 * What QEMU answers and tells, as far as it is read, from its `qapi/*.json` (10.0). It is checked: where a guest has broken out
 * of QEMU, it is the guest that answers. Members that are not read may be anything, and an older QEMU (≥ 9.0) or a newer one may
 * leave out or add some; what a word may be is for the type checker alone, since new ones come.
 */
import Type, { type Static } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';

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

const Text = Type.String();
const word = <T extends string>() => Type.Unsafe<T>(Type.String());
const Named = Type.Object({ name: Text });
const NamedAndTyped = Type.Object({ name: Text, type: Text });

/** A block node, as `query-block` tells of it. */
const BlockDeviceInfo = Type.Object({
  file: Text,
  'node-name': Type.Optional(Text),
  ro: Type.Boolean(),
  image: Type.Object({ filename: Text, format: Text, 'virtual-size': Type.Number({ minimum: 0 }) }),
});

const RESULTS = {
  'query-status': Type.Object({ status: word<RunState>(), running: Type.Boolean() }),
  'query-uuid': Type.Object({ UUID: Text }),
  'query-machines': Type.Array(
    Type.Object({ name: Text, alias: Type.Optional(Text), deprecated: Type.Boolean() }),
  ),
  /** Commands, types and events of QEMU's description of itself, which is one list of them. */
  'query-qmp-schema': Type.Array(
    Type.Object({
      name: Text,
      'arg-type': Type.Optional(Text),
      members: Type.Optional(Type.Array(Type.Object({ name: Type.Optional(Text) }))),
    }),
  ),

  /** All types that QEMU has or could load, those of devices among them. */
  'qom-list-types': Type.Array(Named),
  /** Children and properties of an object: its children's types are `child<TYPE>`. */
  'qom-list': Type.Array(NamedAndTyped),
  /** Properties of all objects of a type, without one being made. */
  'qom-list-properties': Type.Array(NamedAndTyped),
  'qom-get': Type.Unknown(),

  /** `frontend-open`: for a channel into the guest, whether a program in the guest has it open. */
  'query-chardev': Type.Array(Type.Object({ label: Text, 'frontend-open': Type.Boolean() })),
  'query-cpus-fast': Type.Array(Type.Object({ 'thread-id': Type.Integer({ minimum: 1 }), 'qom-path': Text })),
  'human-monitor-command': Text,

  'query-block': Type.Array(
    Type.Object({
      /** The drive's id; empty for a device built from `-blockdev` and `-device`. */
      device: Text,
      /** The device's QOM path or, when it was given one, its id. */
      qdev: Type.Optional(Text),
      inserted: Type.Optional(BlockDeviceInfo),
    }),
  ),
  'query-named-block-nodes': Type.Array(Type.Object({ 'node-name': Text })),
  'x-debug-query-block-graph': Type.Object({
    nodes: Type.Array(
      Type.Object({
        id: Type.Number(),
        type: word<'block-backend' | 'block-job' | 'block-driver'>(),
        name: Text,
      }),
    ),
    edges: Type.Array(Type.Object({ parent: Type.Number(), child: Type.Number(), name: Text })),
  }),
  'query-block-jobs': Type.Array(
    Type.Object({
      device: Text,
      len: Type.Number(),
      offset: Type.Number(),
      busy: Type.Boolean(),
      ready: Type.Boolean(),
    }),
  ),

  'query-yank': Type.Array(Type.Object({ type: word<'migration' | 'block-node' | 'chardev'>() })),
  /** `dirty-rate` in MiB per second; absent, or -1, when nothing was measured. */
  'query-dirty-rate': Type.Object({
    status: word<'unstarted' | 'measuring' | 'measured'>(),
    'dirty-rate': Type.Optional(Type.Number()),
  }),
  'query-migrate': Type.Object({
    status: Type.Optional(word<MigrationStatus>()),
    ram: Type.Optional(
      Type.Object({
        total: Type.Number(),
        remaining: Type.Number(),
        transferred: Type.Number(),
        normal: Type.Number(),
        duplicate: Type.Number(),
        'dirty-sync-count': Type.Number(),
        mbps: Type.Number(),
      }),
    ),
    'error-desc': Type.Optional(Text),
    'blocked-reasons': Type.Optional(Type.Array(Text)),
  }),
  'query-migrate-capabilities': Type.Array(Type.Object({ capability: Text, state: Type.Boolean() })),
  /** `direct-io` since QEMU 9.1 */
  'query-migrate-parameters': Type.Object({
    'direct-io': Type.Optional(Type.Boolean()),
    'downtime-limit': Type.Optional(Type.Number()),
  }),
} as const;

/** Command → what it answers. The answers of others are not read. */
export type Results = { readonly [C in keyof typeof RESULTS]: Static<(typeof RESULTS)[C]> };

export type MigrationInfo = Results['query-migrate'];
export type BlockGraph = Results['x-debug-query-block-graph'];
export type MachineInfo = Results['query-machines'][number];
export type BlockJobInfo = Results['query-block-jobs'][number];
export type SchemaEntity = Results['query-qmp-schema'][number];

const BlockJobEvent = Type.Object({ device: Text, len: Type.Number(), offset: Type.Number() });

const EVENTS = {
  MIGRATION: Type.Object({ status: word<MigrationStatus>() }),
  BLOCK_JOB_PENDING: Type.Object({ id: Text }),
  BLOCK_JOB_READY: BlockJobEvent,
  BLOCK_JOB_COMPLETED: Type.Object({ ...BlockJobEvent.properties, error: Type.Optional(Text) }),
  BLOCK_JOB_CANCELLED: BlockJobEvent,
  JOB_STATUS_CHANGE: Type.Object({ id: Text, status: word<JobStatus>() }),
  /** A program in the guest opened or closed a channel. */
  VSERPORT_CHANGE: Type.Object({ id: Text, open: Type.Boolean() }),
} as const;

/** Event → its data. That of others is not read. */
export type ReadEvents = { readonly [E in keyof typeof EVENTS]: Static<(typeof EVENTS)[E]> };

/** Whether this is what a command may answer. */
export function isResultOf(command: string, result: unknown): boolean {
  return fits(RESULTS, command, result);
}

/** Whether this is what an event of that name may bring. */
export function isDataOf(event: string, data: unknown): boolean {
  return fits(EVENTS, event, data);
}

/** Compiled when first needed: `query-qmp-schema` has thousands of members, and a migration is asked for in the pause. */
const validators = new Map<Type.TSchema, Validator>();

function fits(schemas: Readonly<Record<string, Type.TSchema>>, name: string, value: unknown): boolean {
  const schema = Object.hasOwn(schemas, name) ? schemas[name] : undefined;
  if (schema === undefined) return true;
  const validator = validators.get(schema) ?? Compile(schema);
  validators.set(schema, validator);
  return validator.Check(value);
}
