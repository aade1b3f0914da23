/**
 * What travels between daemon and clients under `/v1`: the one description both sides are typed from, and the
 * source of the OpenAPI document. Field names are a contract with scripts outside this repository.
 */
import Type, { type Static } from 'typebox';
import { ERRORS } from '../errors.ts';
import type { Principal } from './remote.ts';
import type { Retention, Schedule } from './schedules.ts';
import {
  DEFAULT_IMAGE,
  DRIVER_NAMES,
  FALLBACKS,
  GUEST_STATES,
  LIVE_METHODS,
  NAME_PATTERN,
  ON_BOOT,
  ON_SHUTDOWN,
} from './constants.ts';

const Nullable = <T extends Type.TSchema>(schema: T, description?: string) =>
  Type.Union([schema, Type.Null()], description === undefined ? {} : { description });
const Literals = <const T extends readonly string[]>(...values: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...values] });

/** A schema of this file by its name: what makes the OpenAPI document readable. */
export const Ref = <T>(id: string) => Type.Unsafe<T>({ $ref: `${id}#` });

export const GuestState = Literals(...GUEST_STATES);
/** What a guest is doing. */
export type GuestState = Static<typeof GuestState>;

export const Policy = Type.Object(
  {
    onBoot: Literals(...ON_BOOT),
    onShutdown: Literals(...ON_SHUTDOWN),
    order: Type.Integer({
      minimum: 0,
      maximum: 10_000,
      description: 'lower ones are started first, and begin to end last',
    }),
    delaySeconds: Type.Integer({ minimum: 0, maximum: 3600, description: 'waited after starting it' }),
    timeLimitSeconds: Type.Integer({
      minimum: 1,
      maximum: 86_400,
      description: 'for its start, and for each step of its end',
    }),
    fallback: Type.Unsafe<(typeof FALLBACKS)[number]>({
      type: 'string',
      enum: [...FALLBACKS],
      description: 'when it can not be restored on boot: leave it stopped, or start it from its disks',
    }),
  },
  { additionalProperties: false, $id: 'Policy' },
);
/** What is done to a guest when its host starts and stops. */
export type Policy = Static<typeof Policy>;

export const GuestDisk = Type.Object({
  name: Type.String(),
  path: Type.String({ description: "the user's own file: the root layer" }),
  format: Type.String(),
  bus: Type.String(),
  readonly: Type.Boolean(),
  sizeBytes: Type.Integer({ description: 'size the guest sees' }),
  driver: Nullable(Literals(...DRIVER_NAMES), 'how its layers are made; null when it has none'),
  layers: Type.Integer({ description: 'length of the chain from the head to the root layer' }),
  head: Type.String({ description: 'file the guest writes to, or will when it next starts' }),
});
/** A disk of a guest, and how it is captured. */
export type GuestDisk = Static<typeof GuestDisk>;

export const Guest = Type.Object(
  {
    name: Type.String(),
    uuid: Type.String(),
    state: GuestState,
    memoryBytes: Type.Integer(),
    cpus: Type.Integer(),
    disks: Type.Array(GuestDisk),
    images: Type.Integer({ description: 'how many save images there are' }),
    lastImage: Nullable(Type.String({ description: 'name of the newest save image' })),
    lastImageAt: Nullable(Type.String()),
    currentImage: Nullable(Type.String({ description: "the image that the guest's present derives from" })),
    policy: Ref<Policy>('Policy'),
    schedules: Type.Array(Ref<Schedule>('Schedule'), { description: 'when it is saved by itself' }),
    retention: Ref<Retention>('Retention'),
    labels: Type.Array(Type.String(), { description: 'by which some are let see it' }),
    machine: Type.String(),
    cpu: Type.String(),
    accelerator: Type.String(),
    qemu: Type.Object({
      build: Nullable(Type.String({ description: "one of the host's QEMUs by name; null: the usual one" })),
      version: Nullable(Type.String({ description: 'of the process that it is now' })),
    }),
    pid: Nullable(Type.Integer()),
    operation: Nullable(Type.String({ description: 'operation under way on this guest' })),
    createdAt: Type.String(),
    stateReason: Nullable(
      Type.String({ description: 'why it is not as it should be: crashed, halted, frozen' }),
    ),
    definition: Type.Unknown({ description: 'the pinned definition' }),
  },
  { $id: 'Guest' },
);
/** A guest as it is now. */
export type Guest = Static<typeof Guest>;

export const ImageState = Literals('creating', 'ready', 'deleting', 'broken');
/** Only what is `ready` is promised to restore. */
export type ImageState = Static<typeof ImageState>;
const CaptureMethodName = Literals('precopy', 'background', 'stopped');
const LiveMethodName = Literals(...LIVE_METHODS);
const RestoreMethodName = Literals('mapped', 'lazy', 'eager');

const ImageDisk = Type.Object({
  name: Type.String(),
  layer: Type.String({ description: 'file of the pinned layer' }),
  format: Type.String(),
  sizeBytes: Type.Integer(),
  storedBytes: Type.Integer({ description: 'what the pinned layer itself occupies' }),
});

const ImageMedium = Type.Object(
  {
    disk: Type.String(),
    path: Type.String(),
    kind: Literals('read-only', 'excluded'),
    sha256: Nullable(Type.String({ description: 'of a read-only one, which must be the same at a restore' })),
  },
  { description: 'a disk of the machine that the image does not hold' },
);

export const PauseParts = Type.Object(
  {
    stopMs: Type.Number({ description: 'until the guest stood still' }),
    disksMs: Type.Number({ description: 'all disks switched' }),
    memoryMs: Type.Number({ description: 'the last of memory written, or all of it tracked; device state' }),
    resumeMs: Type.Number({ description: 'until the guest ran again' }),
  },
  { $id: 'PauseParts', description: 'what a guest stood still for' },
);
export type PauseParts = Static<typeof PauseParts>;

export const Image = Type.Object(
  {
    name: Type.String({ description: `"${DEFAULT_IMAGE}" for the default image` }),
    guest: Type.String(),
    state: ImageState,
    createdAt: Type.String(),
    live: Type.Boolean(),
    method: CaptureMethodName,
    pauseMs: Nullable(
      Type.Number({ description: 'how long the guest stood still; null when it was to stop anyway' }),
    ),
    predictedPauseMs: Nullable(Type.Number({ description: 'what was expected of it, before' })),
    maxPauseMs: Nullable(Type.Number({ description: 'what was allowed, if anything was said' })),
    pauseParts: Nullable(Ref<PauseParts>('PauseParts')),
    bytesWritten: Nullable(
      Type.Integer({ description: 'to the memory file, pages that were written again each time' }),
    ),
    memoryBytes: Type.Integer({ description: "the guest's memory" }),
    diskBytes: Type.Integer({ description: 'sizes of its disks as the guest sees them' }),
    storedBytes: Type.Integer({
      description: 'really occupied by memory file, picture of the screen and pinned layers inside Stasis',
    }),
    freesBytes: Type.Integer({
      description:
        'what deleting this image alone frees for certain: memory file, picture, layers that only it needs',
    }),
    freesAtMostBytes: Type.Integer({
      description:
        'the most that it may free: also what merged layers hold twice, what shares blocks, memory that a guest runs on',
    }),
    description: Type.String(),
    parent: Nullable(Type.String({ description: 'image the guest derived from when this one was taken' })),
    disks: Type.Array(ImageDisk),
    media: Type.Array(ImageMedium),
    verifiedAt: Nullable(
      Type.String(),
      'when it was last found sound, if nothing has been found wrong since',
    ),
    verified: Type.Object({
      checksumsAt: Nullable(Type.String(), 'when all of its files were found to be what they were'),
      bootAt: Nullable(Type.String(), 'when it came to life in a trial'),
      evidence: Type.Array(Type.String(), { description: 'what showed that it did' }),
    }),
    damage: Nullable(Type.String(), 'what was found wrong with it'),
    protected: Type.Boolean({ description: 'nothing removes it' }),
    schedule: Nullable(Type.String({ description: 'the schedule that made it; null: somebody did' })),
    current: Type.Boolean({ description: "the guest's present derives from this image" }),
    saveMs: Type.Integer({ description: 'from request to ready' }),
    guestWasPaused: Type.Boolean(),
    quiesce: Literals('frozen', 'skipped', 'failed'),
    quiesceReason: Nullable(Type.String({ description: 'why its file systems were not frozen' })),
    frozenMs: Nullable(
      Type.Number({ description: 'from the request to freeze until it was thawed; null when it was not' }),
    ),
    qemuVersion: Type.String(),
    machine: Type.String(),
    memoryFile: Type.String(),
    screenFile: Nullable(Type.String({ description: 'PNG of what the display showed, when there is one' })),
    restoredCount: Type.Integer(),
    restoreMethod: Nullable(RestoreMethodName),
    definition: Type.Unknown(),
  },
  { $id: 'Image' },
);
/** A save image: memory, device state and all disks of a guest at one instant. */
export type Image = Static<typeof Image>;

const DiskLayer = Type.Object({
  id: Type.String(),
  parent: Nullable(Type.String({ description: 'the layer below; null when it stands alone' })),
  root: Type.Boolean({ description: "the user's own file" }),
  path: Type.String(),
  format: Type.String(),
  driver: Type.String({ description: 'who made it' }),
  sizeBytes: Type.Integer({ description: 'size the guest sees' }),
  storedBytes: Nullable(Type.Integer({ description: 'really occupied; null when the file is not there' })),
  writers: Type.Array(Type.String(), { description: 'the guest that writes to it, or will when it starts' }),
  images: Type.Array(Type.Object({ guest: Type.String(), name: Type.String() }), {
    description: 'the images that pin it',
  }),
  readers: Type.Integer({ description: 'how many exports and mounts read it, as what they serve' }),
});

export const DiskTree = Type.Object(
  {
    guest: Type.String(),
    disk: Type.String(),
    path: Type.String({ description: "the user's own file" }),
    format: Type.String(),
    driver: Nullable(Literals(...DRIVER_NAMES), 'how its layers are made; null when it has none'),
    bus: Type.String(),
    readonly: Type.Boolean(),
    layers: Type.Array(DiskLayer, {
      description: 'parents first; with those of clones of the guest; none for a disk that is not captured',
    }),
  },
  { $id: 'DiskTree' },
);
/** The layers of a disk, and which images hold them. */
export type DiskTree = Static<typeof DiskTree>;

export const DiskExport = Type.Object(
  {
    id: Type.String({ description: 'that of the operation which opened it' }),
    guest: Type.String(),
    image: Type.String(),
    disk: Type.String(),
    sizeBytes: Type.Integer(),
    socket: Type.String({ description: 'unix socket on the host of the daemon' }),
    uri: Type.String({ description: 'the same for NBD clients' }),
  },
  {
    $id: 'DiskExport',
    description:
      'a disk of an image, served read-only by NBD until its last client has gone; the first comes within 30 s',
  },
);
/** A disk of an image that is being served, read-only. */
export type DiskExport = Static<typeof DiskExport>;

export const ErrorBodySchema = Type.Object(
  {
    code: Type.Unsafe<keyof typeof ERRORS>({ type: 'string', enum: Object.keys(ERRORS) }),
    message: Type.String(),
    guest: Type.Optional(Type.String()),
    image: Type.Optional(Type.String()),
    details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { $id: 'ErrorBody' },
);
export const ErrorReply = Type.Object(
  { error: Ref<Static<typeof ErrorBodySchema>>('ErrorBody') },
  { $id: 'ErrorReply' },
);

export const OperationKind = Literals(
  'define',
  'undefine',
  'policy',
  'labels',
  'qemu',
  'start',
  'shutdown',
  'stop',
  'pause',
  'resume',
  'reset',
  'save',
  'restore',
  'clone',
  'delete',
  'protect',
  'unprotect',
  'schedule',
  'retention',
  'prune',
  'export',
  'compact',
  'collect',
  'verify',
  'save-all',
  'restore-all',
);
/** What an operation does. */
export type OperationKind = Static<typeof OperationKind>;
export const OperationState = Literals('running', 'done', 'failed', 'cancelled');
/** How far an operation is. */
export type OperationState = Static<typeof OperationState>;

export const Outcome = Type.Object(
  {
    name: Type.String({
      description:
        'thaw, clock, network, generation, agent, identity, space, layers, collect, compact DISK; of save-all and restore-all the name of a guest; of verify a part of the image; of prune of an image',
    }),
    outcome: Literals('done', 'skipped', 'failed'),
    message: Type.String(),
    wanted: Type.Optional(Type.String({ description: 'of a guest: what its policy says' })),
    tookMs: Type.Optional(Type.Integer({ description: 'of a guest: how long that took' })),
    file: Type.Optional(Type.String({ description: 'of a part of an image: its file' })),
    ranges: Type.Optional(
      Type.Array(Type.Object({ start: Type.Integer(), end: Type.Integer() }), {
        description: 'of it: bytes that are not what they were',
      }),
    ),
  },
  { $id: 'Outcome', description: 'what was done besides the work itself, or for each guest' },
);
export type Outcome = Static<typeof Outcome>;

export const Operation = Type.Object(
  {
    id: Type.String(),
    kind: OperationKind,
    guest: Type.String({ description: '"(host)" for what concerns all guests' }),
    image: Nullable(Type.String()),
    schedule: Nullable(Type.String({ description: 'the schedule that a save is a run of' })),
    state: OperationState,
    phase: Type.String({ description: 'the step under way, or the last one' }),
    bytesDone: Type.Integer(),
    bytesTotal: Type.Integer({ description: '0 when this phase has no measurable size' }),
    cancellable: Type.Boolean(),
    createdAt: Type.String(),
    finishedAt: Nullable(Type.String()),
    steps: Type.Array(Type.Object({ name: Type.String(), at: Type.String() })),
    error: Nullable(Ref<Static<typeof ErrorBodySchema>>('ErrorBody')),
    result: Type.Object({
      guest: Type.Optional(Ref<Guest>('Guest')),
      image: Type.Optional(Ref<Image>('Image')),
      export: Type.Optional(Ref<DiskExport>('DiskExport')),
    }),
    warnings: Type.Array(Type.String()),
    outcomes: Type.Array(Ref<Outcome>('Outcome')),
  },
  { $id: 'Operation' },
);
/** A durable piece of work, under way or ended: progress, outcome, warnings. */
export type Operation = Static<typeof Operation>;

export const Event = Type.Object(
  {
    id: Type.Integer({ description: 'grows; 0 for progress, which is not kept' }),
    at: Type.String(),
    type: Literals('guest', 'image', 'operation', 'daemon'),
    action: Type.String({
      description:
        'guest: its new state, defined, undefined, host-shutdown, host-boot, host-boot-failed, schedule, schedule-skipped, schedule-failed, over-quota · image: created, deleted, verified, broken, trial-failed, protected, unprotected · operation: its state · daemon: started, host-boot, scrub-started, scrub-ended',
    }),
    guest: Nullable(Type.String()),
    image: Nullable(Type.String()),
    operation: Nullable(Type.String()),
    message: Type.String(),
  },
  { $id: 'Event' },
);
/** Something that happened to a guest, an image or the host. */
export type Event = Static<typeof Event>;

export const AuditEntry = Type.Object(
  {
    id: Type.Integer({ description: 'without gaps' }),
    at: Type.String(),
    kind: Literals('call', 'outcome', 'trim'),
    caller: Nullable(
      Type.Object({
        via: Literals('socket', 'web', 'https'),
        uid: Nullable(Type.Integer()),
        gid: Nullable(Type.Integer()),
        pid: Nullable(Type.Integer()),
        user: Nullable(Type.String()),
        session: Nullable(Type.String(), 'of the page, by a name that opens nothing'),
        address: Type.Optional(Nullable(Type.String(), 'of another machine')),
        credential: Type.Optional(Nullable(Type.String(), 'whose token or certificate it was')),
      }),
      'who it was; null: the daemon itself',
    ),
    action: Type.String({ description: 'call: method and route · outcome: kind of the operation' }),
    guest: Nullable(Type.String()),
    image: Nullable(Type.String()),
    parameters: Type.Unknown({
      description: 'what was asked for, without secrets; too long, its size and SHA-256',
    }),
    outcome: Type.String({ description: 'accepted, repeated, done, cancelled, or the code of an error' }),
    operation: Nullable(Type.String()),
    request: Nullable(Type.String({ description: 'id of the request, as it is in the log' })),
    message: Nullable(Type.String()),
    previous: Type.String({ description: 'hash of the entry before' }),
    hash: Type.String({ description: 'SHA-256 of this entry and `previous`' }),
  },
  { $id: 'AuditEntry' },
);
/** Who asked for what, and how it went. */
export type AuditEntry = Static<typeof AuditEntry>;

export const AuditVerdict = Type.Object(
  {
    problem: Nullable(
      Type.String(),
      'what is wrong, and where; null: nothing was changed since it was written',
    ),
    entries: Type.Integer(),
    last: Nullable(
      Type.Object({ id: Type.Integer(), hash: Type.String() }),
      'the newest entry: its hash stands for the whole trail up to it',
    ),
  },
  { $id: 'AuditVerdict' },
);
/** Whether the audit trail is as it was written. */
export type AuditVerdict = Static<typeof AuditVerdict>;

export const Readiness = Type.Object(
  {
    ready: Type.Boolean(),
    reasons: Type.Array(Type.String(), { description: 'why it is not' }),
    remarks: Type.Array(Type.String(), { description: 'what should be looked at, though it is' }),
  },
  { $id: 'Readiness' },
);
/** Whether the daemon can do its work. */
export type Readiness = Static<typeof Readiness>;

const ScrubStatus = Type.Object({
  schedule: Nullable(Type.String(), 'null when it is turned off'),
  nextAt: Nullable(Type.String()),
  last: Nullable(
    Type.Object({
      startedAt: Type.String(),
      finishedAt: Nullable(Type.String(), 'null while it goes on'),
      verified: Type.Integer({ description: 'images found sound' }),
      damaged: Type.Array(Type.String(), { description: 'GUEST / IMAGE' }),
      skipped: Type.Array(Type.String(), { description: 'images that could not be looked at, and why' }),
    }),
  ),
});

export const HostStatus = Type.Object(
  {
    pid: Type.Integer(),
    version: Type.String(),
    startedAt: Type.String(),
    home: Type.String(),
    qemu: Nullable(Type.Object({ binary: Type.String(), version: Type.String() })),
    guests: Type.Object({ defined: Type.Integer(), running: Type.Integer() }),
    images: Type.Integer(),
    storedBytes: Type.Integer(),
    freeBytes: Type.Integer(),
    residentBytes: Type.Integer(),
    unwrittenRecords: Type.Integer({
      description:
        'record files beside images that do not say yet what the catalog says: soon 0, if they can be written',
    }),
    readiness: Ref<Readiness>('Readiness'),
    boot: Type.Object(
      {
        id: Type.String({ description: "the kernel's own name for it" }),
        seenAt: Type.String({ description: 'when a daemon first saw it' }),
        after: Literals('first', 'clean', 'crash'),
        ran: Type.Array(Type.String(), { description: 'guests that ran when the host went down before' }),
        settledAt: Nullable(Type.String(), "when every guest's policy had been carried out"),
        guests: Type.Array(Ref<Outcome>('Outcome'), { description: 'how that went so far' }),
      },
      { description: 'the boot of the host that this is' },
    ),
    shutdown: Nullable(
      Type.Object({
        at: Type.String(),
        clean: Type.Boolean({ description: 'every guest ended as its policy says, or was left as it says' }),
        guests: Type.Array(Ref<Outcome>('Outcome')),
      }),
      'how the guests were last ended for a shutdown of the host',
    ),
    scrub: ScrubStatus,
  },
  { $id: 'HostStatus' },
);
/** The daemon, and what it did at the last start and stop of its host. */
export type HostStatus = Static<typeof HostStatus>;

/** Whatever page is shown, it goes on by the events, and knows who looks at it. */
const FOR_PAGES = {
  lastEvent: Type.Integer({ description: 'id of the newest event: where to follow from' }),
  principal: Ref<Principal>('Principal'),
};

export const Overview = Type.Object(
  {
    guests: Type.Array(Ref<Guest>('Guest')),
    operations: Type.Array(Ref<Operation>('Operation'), { description: 'those under way' }),
    images: Type.Optional(Type.Array(Ref<Image>('Image'), { description: 'if they are asked for' })),
    ...FOR_PAGES,
  },
  { $id: 'Overview' },
);
/** What a page about all guests shows, in one answer. */
export type Overview = Static<typeof Overview>;

export const GuestOverview = Type.Object(
  {
    guest: Ref<Guest>('Guest'),
    images: Type.Array(Ref<Image>('Image')),
    operations: Type.Array(Ref<Operation>('Operation'), {
      description: 'those under way, then the newest',
    }),
    ...FOR_PAGES,
  },
  { $id: 'GuestOverview' },
);
/** What a page about one guest shows, in one answer. */
export type GuestOverview = Static<typeof GuestOverview>;

const DoctorCheck = Type.Object({
  name: Type.String(),
  serves: Type.String({ description: 'what of Stasis it is for' }),
  status: Literals('ok', 'degraded', 'missing'),
  message: Type.String(),
  cure: Nullable(
    Type.String({ description: 'how to enable it; of one that is ok, how there would be more' }),
  ),
});
export const Doctor = Type.Object({ checks: Type.Array(DoctorCheck) }, { $id: 'Doctor' });
/** What this host can do, what it can not, and how to enable it. */
export type Doctor = Static<typeof Doctor>;

export const HostOverview = Type.Object(
  { status: Ref<HostStatus>('HostStatus'), doctor: Ref<Doctor>('Doctor'), ...FOR_PAGES },
  { $id: 'HostOverview' },
);
/** What a page about the host shows, in one answer. */
export type HostOverview = Static<typeof HostOverview>;

export const EventsOverview = Type.Object(
  {
    events: Type.Array(Ref<Event>('Event'), { description: 'the newest, oldest of them first' }),
    audit: Nullable(
      Type.Array(Ref<AuditEntry>('AuditEntry')),
      'the same; null for who may not read the audit trail',
    ),
    ...FOR_PAGES,
  },
  { $id: 'EventsOverview' },
);
/** What a page about events shows, in one answer. */
export type EventsOverview = Static<typeof EventsOverview>;

export const SaveAllPlan = Type.Object(
  {
    budgetSeconds: Nullable(Type.Number()),
    bytesPerSecond: Type.Integer({ description: 'reckoned with, for all saves together' }),
    basis: Type.String({ description: 'where that speed is from' }),
    parallel: Type.Integer({ description: 'so many saves at once' }),
    guests: Type.Array(
      Type.Object({
        guest: Type.String(),
        wanted: Literals(...ON_SHUTDOWN),
        action: Literals(...ON_SHUTDOWN),
        bytes: Type.Integer({ description: 'to be written at most' }),
        endsAfterSeconds: Nullable(Type.Number(), 'expected, from now'),
        why: Type.String(),
      }),
    ),
  },
  { $id: 'SaveAllPlan' },
);
/** What a shutdown of the host would do to each guest, and how long that would take. */
export type SaveAllPlan = Static<typeof SaveAllPlan>;

export const HostCheck = Type.Object(
  {
    qemu: Type.Object({ binary: Type.String(), version: Type.String() }),
    results: Type.Array(
      Type.Object({
        guest: Type.String(),
        image: Nullable(Type.String(), 'null: whether the guest could be started from its disks'),
        madeBy: Nullable(Type.String(), 'version of the QEMU that the image was made with'),
        qemu: Type.String({ description: 'version of the QEMU that it is about' }),
        verdict: Literals('yes', 'warning', 'no'),
        reasons: Type.Array(Type.String(), { description: 'why it could not' }),
        remarks: Type.Array(Type.String(), { description: 'what should be known though it could' }),
      }),
    ),
  },
  { $id: 'HostCheck' },
);
/** Which images could be restored, and which guests started, by a QEMU. */
export type HostCheck = Static<typeof HostCheck>;

// Requests ------------------------------------------------------------------------------------------------------

/** A definition is checked by its own strict reader (guests/definition.ts), which names unknown keys. */
export const DefineRequest = Type.Object(
  {
    definition: Type.Unknown(),
    directory: Type.Optional(Type.String({ description: 'what relative paths are relative to' })),
  },
  { additionalProperties: false },
);

export const SaveRequest = Type.Object(
  {
    name: Type.Optional(Type.String({ description: 'none: the default image' })),
    live: Type.Optional(Type.Boolean()),
    quiesce: Type.Optional(
      Type.Union([Type.Boolean(), Type.Literal('require')], {
        description:
          "freeze the guest's file systems for that instant, through its agent; when that fails it is saved all the same, unless required",
      }),
    ),
    method: Type.Optional(LiveMethodName),
    maxPauseMs: Type.Optional(
      Type.Number({ exclusiveMinimum: 0, description: 'a live save that would take longer is refused' }),
    ),
    description: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  { additionalProperties: false },
);
/** What is asked for when an image is taken. */
export type SaveRequest = Static<typeof SaveRequest>;

/** Numbers in a query string are text. */
export const PredictionQuery = Type.Object(
  {
    method: Type.Optional(LiveMethodName),
    maxPauseMs: Type.Optional(Type.String({ pattern: '^[0-9]+(\\.[0-9]+)?$' })),
  },
  { additionalProperties: false },
);

export const SavePrediction = Type.Object(
  {
    guest: Type.String(),
    method: Nullable(LiveMethodName, 'what a live save would use; null for a guest that stands still anyway'),
    predictedPauseMs: Nullable(Type.Number()),
    dirtyBytesPerSecond: Type.Integer({ description: 'measured just now' }),
    memoryBytes: Type.Integer(),
    residentBytes: Type.Integer({ description: 'of it, what the guest has ever touched' }),
    hostPageBytes: Type.Integer(),
    disks: Type.Integer(),
    copies: Type.Array(
      Type.Object({
        disk: Type.String(),
        driver: Literals(...DRIVER_NAMES),
        copyMs: Type.Number({ description: 'what a copy of it takes, measured' }),
        copied: Type.Boolean({ description: 'false: it takes too long, an overlay is laid instead' }),
      }),
      { description: 'disks whose driver copies them in the pause' },
    ),
    methods: Type.Array(
      Type.Object({
        method: LiveMethodName,
        predictedPauseMs: Type.Number(),
        predictedSaveMs: Type.Number(),
        predictedBytes: Type.Integer({ description: 'written to the memory file' }),
        basedOn: Type.Integer({ description: 'how many earlier saves corrected the model' }),
        obstacle: Nullable(Type.String({ description: 'why it is not possible, and the cure' })),
      }),
    ),
  },
  { $id: 'SavePrediction' },
);
/** What a live save would be like: the pause of each way to capture the memory, and the one that would be taken. */
export type SavePrediction = Static<typeof SavePrediction>;

export const CompactRequest = Type.Object(
  {
    disk: Type.Optional(Type.String({ description: 'none: all of them' })),
    bytesPerSecond: Type.Optional(
      Type.Integer({ minimum: 1, description: 'of a running guest; none: as fast as it goes' }),
    ),
  },
  { additionalProperties: false },
);

export const VerifyRequest = Type.Object(
  {
    boot: Type.Optional(
      Type.Boolean({ description: 'also restore it, as a guest that is thrown away and has no network' }),
    ),
    timeLimitSeconds: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        maximum: 3600,
        description: 'with boot: how long it may take to come to life (60)',
      }),
    ),
    expect: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 1000,
        description: 'with boot: a regular expression that a line of its serial console must match',
      }),
    ),
    reject: Type.Optional(
      Type.String({ minLength: 1, maxLength: 1000, description: 'with boot: … and one that none may' }),
    ),
    bytesPerSecond: Type.Optional(Type.Integer({ minimum: 1, description: 'read no faster' })),
  },
  { additionalProperties: false },
);
/** What is asked for when an image is looked at. */
export type VerifyRequest = Static<typeof VerifyRequest>;

export const ExportRequest = Type.Object(
  { disk: Type.Optional(Type.String({ description: 'none: the only one of the image' })) },
  { additionalProperties: false },
);

export const RestoreRequest = Type.Object(
  {
    name: Type.Optional(Type.String({ description: 'none: the default image' })),
    delete: Type.Optional(Type.Boolean()),
    paused: Type.Optional(Type.Boolean()),
    method: Type.Optional(RestoreMethodName),
    saveCurrent: Type.Optional(
      Type.Union([Type.Boolean(), Type.String()], {
        description:
          'first save what the guest is now, live, under this name (true: a name made from the time)',
      }),
    ),
    asNewGuest: Type.Optional(Type.String()),
  },
  { additionalProperties: false },
);
/** What is asked for when a guest is put back. */
export type RestoreRequest = Static<typeof RestoreRequest>;

export const StartRequest = Type.Object(
  { fresh: Type.Optional(Type.Boolean()) },
  { additionalProperties: false },
);
export const ShutdownRequest = Type.Object(
  { timeoutSeconds: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 3600 })) },
  { additionalProperties: false },
);
export const LabelsRequest = Type.Object(
  { labels: Type.Array(Type.String({ pattern: NAME_PATTERN }), { maxItems: 32 }) },
  { additionalProperties: false },
);
export const QemuRequest = Type.Object(
  { build: Nullable(Type.String({ pattern: NAME_PATTERN }), 'null: the usual one') },
  { additionalProperties: false },
);
export const PolicyRequest = Type.Partial(Policy, { additionalProperties: false });
export const SaveAllRequest = Type.Object(
  {
    budgetSeconds: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        maximum: 86_400,
        description: 'all guests have ended after so long; none: as long as it takes',
      }),
    ),
  },
  { additionalProperties: false },
);

export const CatalogBackup = Type.Object(
  {
    name: Type.String(),
    path: Type.String({ description: "on the daemon's host" }),
    createdAt: Type.String(),
    sizeBytes: Type.Integer(),
  },
  { $id: 'CatalogBackup' },
);
/** Where the catalog was copied to, and how large it is. */
export type CatalogBackup = Static<typeof CatalogBackup>;

export const HostCheckRequest = Type.Object(
  {
    binary: Type.Optional(
      Type.String({ pattern: '^/', description: "another QEMU's path; none: what runs each guest" }),
    ),
    build: Type.Optional(
      Type.String({ pattern: NAME_PATTERN, description: 'the same, by its name in the settings' }),
    ),
    guest: Type.Optional(Type.String({ description: 'none: all' })),
    image: Type.Optional(Type.String({ description: 'none: all, and the guest itself' })),
  },
  { additionalProperties: false },
);
/** What is asked for when a host is looked at. */
export type HostCheckRequest = Static<typeof HostCheckRequest>;
