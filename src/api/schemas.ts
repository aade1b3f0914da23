/**
 * What travels between daemon and clients under `/v1`: the one description both sides are typed from, and the
 * source of the OpenAPI document. Field names are a contract with scripts outside this repository.
 */
import Type, { type Static } from 'typebox';
import { ERRORS } from '../errors.ts';
import { DEFAULT_IMAGE, LIVE_METHODS, ON_BOOT, ON_SHUTDOWN } from './constants.ts';

const Nullable = <T extends Type.TSchema>(schema: T, description?: string) =>
  Type.Union([schema, Type.Null()], description === undefined ? {} : { description });
const Literals = <const T extends readonly string[]>(...values: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...values] });

/** A schema of this file by its name: what makes the OpenAPI document readable. */
export const Ref = <T>(id: string) => Type.Unsafe<T>({ $ref: `${id}#` });

export const GuestState = Literals('stopped', 'running', 'paused', 'saving', 'restoring', 'crashed');
export type GuestState = Static<typeof GuestState>;

export const OnBoot = Literals(...ON_BOOT);
export const OnShutdown = Literals(...ON_SHUTDOWN);

export const Policy = Type.Object(
  {
    onBoot: OnBoot,
    onShutdown: OnShutdown,
    order: Type.Integer({ minimum: 0, maximum: 10_000 }),
    delaySeconds: Type.Integer({ minimum: 0, maximum: 3600 }),
  },
  { additionalProperties: false, $id: 'Policy' },
);
export type Policy = Static<typeof Policy>;

export const GuestDisk = Type.Object({
  name: Type.String(),
  path: Type.String({ description: "the user's own file: the root layer" }),
  format: Type.String(),
  bus: Type.String(),
  readonly: Type.Boolean(),
  sizeBytes: Type.Integer({ description: 'size the guest sees' }),
  layers: Type.Integer({ description: 'length of the chain from the head to the root layer' }),
  head: Type.String({ description: 'file the guest writes to, or will when it next starts' }),
});
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
    machine: Type.String(),
    cpu: Type.String(),
    accelerator: Type.String(),
    pid: Nullable(Type.Integer()),
    operation: Nullable(Type.String({ description: 'operation under way on this guest' })),
    createdAt: Type.String(),
    stateReason: Nullable(Type.String({ description: 'why it crashed, when it did' })),
    definition: Type.Unknown({ description: 'the pinned definition' }),
  },
  { $id: 'Guest' },
);
export type Guest = Static<typeof Guest>;

export const ImageState = Literals('creating', 'ready', 'deleting', 'broken');
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
    description: Type.String(),
    parent: Nullable(Type.String({ description: 'image the guest derived from when this one was taken' })),
    disks: Type.Array(ImageDisk),
    verifiedAt: Nullable(Type.String()),
    current: Type.Boolean({ description: "the guest's present derives from this image" }),
    saveMs: Type.Integer({ description: 'from request to ready' }),
    guestWasPaused: Type.Boolean(),
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
export type Image = Static<typeof Image>;

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
  'collect',
);
export type OperationKind = Static<typeof OperationKind>;
export const OperationState = Literals('running', 'done', 'failed', 'cancelled');
export type OperationState = Static<typeof OperationState>;

export const Outcome = Type.Object(
  {
    name: Type.String({ description: 'clock, network, generation, agent, identity, space' }),
    outcome: Literals('done', 'skipped', 'failed'),
    message: Type.String(),
  },
  { $id: 'Outcome', description: 'what was done for the guest besides the work itself' },
);
export type Outcome = Static<typeof Outcome>;

export const Operation = Type.Object(
  {
    id: Type.String(),
    kind: OperationKind,
    guest: Type.String(),
    image: Nullable(Type.String()),
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
    }),
    warnings: Type.Array(Type.String()),
    outcomes: Type.Array(Ref<Outcome>('Outcome')),
  },
  { $id: 'Operation' },
);
export type Operation = Static<typeof Operation>;

export const Event = Type.Object(
  {
    id: Type.Integer({ description: 'grows; 0 for progress, which is not kept' }),
    at: Type.String(),
    type: Literals('guest', 'image', 'operation', 'daemon'),
    action: Type.String({
      description:
        'guest: its new state, defined, undefined · image: created, deleted, broken · operation: its state',
    }),
    guest: Nullable(Type.String()),
    image: Nullable(Type.String()),
    operation: Nullable(Type.String()),
    message: Type.String(),
  },
  { $id: 'Event' },
);
export type Event = Static<typeof Event>;

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
  },
  { $id: 'HostStatus' },
);
export type HostStatus = Static<typeof HostStatus>;

export const Overview = Type.Object(
  {
    guests: Type.Array(Ref<Guest>('Guest')),
    operations: Type.Array(Ref<Operation>('Operation'), { description: 'those under way' }),
    lastEvent: Type.Integer({ description: 'id of the newest event: where to follow from' }),
  },
  { $id: 'Overview' },
);
export type Overview = Static<typeof Overview>;

export const GuestOverview = Type.Object(
  {
    guest: Ref<Guest>('Guest'),
    images: Type.Array(Ref<Image>('Image')),
    operations: Type.Array(Ref<Operation>('Operation'), {
      description: 'those under way, then the newest',
    }),
    lastEvent: Type.Integer(),
  },
  { $id: 'GuestOverview' },
);
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
export type Doctor = Static<typeof Doctor>;

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
    quiesce: Type.Optional(Type.Boolean()),
    method: Type.Optional(LiveMethodName),
    maxPauseMs: Type.Optional(
      Type.Number({ exclusiveMinimum: 0, description: 'a live save that would take longer is refused' }),
    ),
    description: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  { additionalProperties: false },
);
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
export type SavePrediction = Static<typeof SavePrediction>;

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
export type RestoreRequest = Static<typeof RestoreRequest>;

export const StartRequest = Type.Object(
  { fresh: Type.Optional(Type.Boolean()) },
  { additionalProperties: false },
);
export const ShutdownRequest = Type.Object(
  { timeoutSeconds: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 3600 })) },
  { additionalProperties: false },
);
export const PolicyRequest = Type.Partial(Policy, { additionalProperties: false });
