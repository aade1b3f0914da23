/** The tables, as Kysely sees them, and the migrations that make them. JSON columns are text, checked by who writes them. */
import type { DriverName, Role } from '../api/constants.ts';
import type { OperationKind } from '../api/schemas.ts';
import { sql, type ColumnType, type Generated, type Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';

/** A flag: SQLite has no boolean. */
type Flag = ColumnType<number, 0 | 1, 0 | 1>;

export interface GuestTable {
  uuid: string;
  name: string;
  /** the pinned definition, JSON */
  definition: string;
  /** run directory of the QEMU process that is, or is about to be, this guest; null when there is none */
  instance: string | null;
  crashed: Flag;
  stateReason: string | null;
  /** the image that the guest's present derives from */
  currentImage: string | null;
  /** name of the directory with the state of its TPM, if it has one and was ever started */
  tpm: Generated<string | null>;
  /** its file systems are frozen, or may be: whoever lets it run has to thaw them */
  frozen: Generated<number>;
  createdAt: string;
}

export interface LayerTable {
  id: string;
  path: string;
  format: 'qcow2' | 'raw';
  parent: string | null;
  /** the driver that made it, and removes it; of a root: the driver of the disk */
  driver: DriverName;
  /** what all layers have in common that come from one disk of a user's: the id of its root, even when that is gone */
  tree: string;
  /** UUID of the guest that it was made for; of a root: whose user brought it */
  guest: string;
  /** the file the user brought: never removed, other layers are folded into it */
  root: Flag;
  sizeBytes: number;
  /** what the file looked like when Stasis last let go of it, JSON; null while a guest may write to it */
  identity: string | null;
}

/** What a file that somebody brought was before QEMU's user was let at it. */
export interface FileOwnerTable {
  path: string;
  uid: number;
  gid: number;
  mode: number;
}

export interface HeadTable {
  guest: string;
  disk: string;
  layer: string;
}

export interface ImageTable {
  id: string;
  guest: string;
  name: string;
  state: 'creating' | 'ready' | 'deleting' | 'broken';
  parent: string | null;
  createdAt: string;
  live: Flag;
  memoryBytes: number;
  description: string;
  /** when all of it was last found to be as it should, and nothing has been found wrong since */
  verifiedAt: string | null;
  /** what was found then, JSON: `Verification`; null when it was never looked at */
  verification: Generated<string | null>;
  restoredCount: Generated<number>;
  restoreMethod: 'mapped' | 'lazy' | 'eager' | null;
  /** nothing removes it */
  protected: Generated<number>;
  /** name of the schedule that made it; null when somebody did by hand */
  schedule: Generated<string | null>;
  /** how it was taken: method, pause, versions, definition; JSON, the same that stands in the image's manifest */
  manifest: string;
}

/** One live capture as it went, kept for the next one's prediction. */
export interface CaptureTable {
  id: Generated<number>;
  guest: string;
  at: string;
  method: 'precopy' | 'background';
  dirtyBytesPerSecond: number;
  /** what the model said, before it was corrected by experience */
  modelMs: number;
  predictedMs: number;
  pauseMs: number;
  bytesPerSecond: number;
}

export interface PinTable {
  image: string;
  disk: string;
  layer: string;
}

export interface OperationTable {
  id: string;
  kind: OperationKind;
  procedure: string;
  parent: string | null;
  guest: string | null;
  guestName: string;
  image: string | null;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  /** 1 from the one transaction on that makes the work count: before it recovery undoes, after it recovery finishes */
  committed: Flag;
  args: string;
  plan: string;
  steps: string;
  warnings: string;
  /** what was done besides the work itself, each with how it went, JSON */
  outcomes: Generated<string>;
  error: string | null;
  /** 1 when nothing is left to finish or to undo; a failure on that way leaves 0, and it is tried again */
  settled: Flag;
  createdAt: string;
  finishedAt: string | null;
  /** who asked for it, JSON; null: the daemon itself */
  caller: Generated<string | null>;
  /** whose request began it and by which key, if it had one: the same request again begins nothing */
  requestKey: Generated<string | null>;
  /** SHA-256 of what was asked for, hexadecimal */
  requestHash: Generated<string | null>;
}

/** Who did what, in the order it was done; JSON columns as they were hashed. */
export interface AuditTable {
  /** without gaps */
  id: number;
  at: string;
  kind: 'call' | 'outcome' | 'trim';
  caller: string | null;
  action: string;
  guest: string | null;
  image: string | null;
  parameters: string | null;
  outcome: string;
  operation: string | null;
  request: string | null;
  message: string | null;
  /** hash of the entry before */
  previous: string;
  hash: string;
}

/** One row that is written to see whether anything can be. */
export interface WriteTrialTable {
  id: number;
  at: string;
}

export interface EventTable {
  id: Generated<number>;
  at: string;
  type: 'guest' | 'image' | 'operation' | 'daemon';
  action: string;
  guest: string | null;
  image: string | null;
  operation: string | null;
  message: string;
}

/** A guest's own rule when it is saved by itself. */
export interface ScheduleTable {
  guest: string;
  name: string;
  /** what the user asked for, JSON: `ScheduleSpec` */
  spec: string;
  /** 1: nothing is due */
  paused: number;
  createdAt: string;
  /** all that was due until then is decided: when it was last due, or when the schedule was made */
  decidedUntil: string;
}

/** What became of one time at which a schedule was due. */
export interface ScheduleRunTable {
  id: Generated<number>;
  guest: string;
  schedule: string;
  dueAt: string;
  /** `waiting` from the decision on until its save is committed: a daemon that died in between does it again */
  state: 'waiting' | 'done' | 'skipped' | 'failed';
  /** how often it was begun */
  attempts: number;
  /** when it was settled */
  endedAt: string | null;
  /** name of the image that it made */
  image: string | null;
  /** the save that it was last begun as */
  operation: string | null;
  message: string;
}

/** Which images of a guest stay. */
export interface RetentionTable {
  guest: string;
  /** JSON: `RetentionRules` */
  rules: string;
}

/** What a file held that looked so. */
export interface ChecksumTable {
  path: string;
  identity: string;
  sha256: string;
}

/** The checksum of a file that images hold and nobody writes to: a layer, or the memory of an image. */
export interface FileSumTable {
  layer: string | null;
  image: string | null;
  sha256: string;
  sizeBytes: number;
  /** see storage/file-sum.ts */
  pieces: Uint8Array;
  /** of a layer: its `identity` when it was summed. Broken, it is another content, and this is forgotten */
  seal: string | null;
  recordedAt: string;
}

/** A walk through all images, to see whether they are as they should be. */
export interface ScrubTable {
  id: Generated<number>;
  startedAt: string;
  /** null while it goes on, also over an end of the daemon */
  finishedAt: string | null;
  verified: Generated<number>;
  /** images found damaged: GUEST / IMAGE, JSON */
  damaged: Generated<string>;
  /** those that could not be looked at, in words, JSON */
  skipped: Generated<string>;
}

/** A boot of the host, as far as a daemon saw it: how it found things, and how it ended. */
export interface HostBootTable {
  id: Generated<number>;
  /** the kernel's own name for it */
  bootId: string;
  seenAt: string;
  /** how the boot before it ended; `first` when none is known */
  after: 'first' | 'clean' | 'crash';
  /** names of the guests that ran when the host went down, JSON */
  ran: string;
  /** since when every guest's policy for a boot has been carried out; null while some are left */
  settledAt: string | null;
  /** how that went for each guest so far, JSON */
  outcomes: string;
  /** when the guests were last ended for a shutdown of the host, to the end … */
  shutdownAt: string | null;
  /** … with each as its policy wants it, or safe otherwise … */
  shutdownClean: Flag;
  /** … the guests that it left running, UUIDs as JSON, and how it went for each, JSON */
  shutdownLeft: string;
  shutdownOutcomes: string;
}

/** How fast many saves at once were written: what the next shutdown of the host reckons with. */
export interface SaveRunTable {
  id: Generated<number>;
  at: string;
  bytes: number;
  /** while at least one of them was under way */
  durationMs: number;
}

/** What opens the daemon to somebody on another machine. */
export interface CredentialTable {
  id: string;
  name: string;
  kind: 'token' | 'certificate';
  /** SHA-256, hexadecimal: of a token's secret, or of the whole certificate, its fingerprint */
  secretHash: string;
  role: Role;
  /** JSON list: only guests with one of these labels; null: all guests */
  labels: string | null;
  createdAt: string;
  expiresAt: string;
  revokedAt: string | null;
  lastUsedAt: string | null;
}

/** Whose record file (recovery/record-files.ts) says what, or not yet what, the catalog says. Kept by triggers. */
export interface RecordTable {
  kind: 'guest' | 'image';
  id: string;
  /** grows with every change of what the file tells */
  version: number;
  /** the version that the file has */
  written: number;
}

export interface Tables {
  guests: GuestTable;
  layers: LayerTable;
  fileOwners: FileOwnerTable;
  heads: HeadTable;
  images: ImageTable;
  pins: PinTable;
  captures: CaptureTable;
  checksums: ChecksumTable;
  fileSums: FileSumTable;
  scrubs: ScrubTable;
  operations: OperationTable;
  events: EventTable;
  audit: AuditTable;
  writeTrial: WriteTrialTable;
  hostBoots: HostBootTable;
  saveRuns: SaveRunTable;
  schedules: ScheduleTable;
  scheduleRuns: ScheduleRunTable;
  retention: RetentionTable;
  credentials: CredentialTable;
  records: RecordTable;
}

const initial: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      `create table guests (
        uuid text primary key, name text not null unique, definition text not null,
        instance text unique, crashed integer not null, stateReason text,
        currentImage text references images (id) on delete set null, createdAt text not null) strict`,
      `create table layers (
        id text primary key, path text not null unique, format text not null,
        parent text references layers (id), root integer not null, sizeBytes integer not null, identity text) strict`,
      `create index layersByParent on layers (parent)`,
      `create table heads (
        guest text not null references guests (uuid) on delete cascade, disk text not null,
        layer text not null unique references layers (id), primary key (guest, disk)) strict`,
      `create table images (
        id text primary key, guest text not null references guests (uuid), name text not null,
        state text not null check (state in ('creating', 'ready', 'deleting', 'broken')),
        parent text references images (id) on delete set null, createdAt text not null, live integer not null,
        memoryBytes integer not null, description text not null, verifiedAt text,
        restoredCount integer not null default 0, restoreMethod text, manifest text not null) strict`,
      // A new default image takes the place of the old one, which lives on as 'deleting' until its files are gone.
      `create unique index imagesByName on images (guest, name) where state in ('ready', 'broken')`,
      `create index imagesByGuest on images (guest, createdAt)`,
      `create index imagesByParent on images (parent)`,
      `create table pins (
        image text not null references images (id) on delete cascade, disk text not null,
        layer text not null references layers (id), primary key (image, disk)) strict`,
      `create index pinsByLayer on pins (layer)`,
      `create table operations (
        id text primary key, kind text not null, procedure text not null, parent text, guest text, guestName text not null,
        image text, state text not null check (state in ('running', 'done', 'failed', 'cancelled')),
        committed integer not null, args text not null, plan text not null, steps text not null,
        warnings text not null, error text, settled integer not null, createdAt text not null, finishedAt text) strict`,
      `create index operationsUnsettled on operations (guest) where settled = 0`,
      `create index operationsByAge on operations (createdAt)`,
      `create table events (
        id integer primary key autoincrement, at text not null, type text not null, action text not null,
        guest text, image text, operation text, message text not null) strict`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const outcomes: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table operations add column outcomes text not null default '[]'`.execute(db);
  },
};

const captures: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`create table captures (
      id integer primary key autoincrement, guest text not null references guests (uuid) on delete cascade,
      at text not null, method text not null, dirtyBytesPerSecond real not null, modelMs real not null, predictedMs real not null, pauseMs real not null,
      bytesPerSecond real not null) strict`.execute(db);
    await sql`create index capturesByGuest on captures (guest, method, id)`.execute(db);
    await sql`create index capturesByMethod on captures (method, id)`.execute(db);
  },
};

const frozen: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table guests add column frozen integer not null default 0`.execute(db);
  },
};

const hostBoots: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`create table hostBoots (
      id integer primary key autoincrement, bootId text not null, seenAt text not null,
      after text not null check (after in ('first', 'clean', 'crash')), ran text not null, settledAt text,
      outcomes text not null, shutdownAt text, shutdownClean integer not null, shutdownLeft text not null,
      shutdownOutcomes text not null) strict`.execute(db);
    await sql`create table saveRuns (
      id integer primary key autoincrement, at text not null, bytes real not null, durationMs real not null) strict`.execute(
      db,
    );
  },
};

/** Until now there were overlays only, in their guests' directories, and every tree hung together. */
const storageDrivers: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      `alter table layers add column driver text not null default 'overlay'`,
      `alter table layers add column tree text not null default ''`,
      `alter table layers add column guest text not null default ''`,
      `create index layersByTree on layers (tree)`,
      `with recursive chain (id, root) as (
        select id, id from layers where parent is null
        union all select layers.id, chain.root from layers join chain on layers.parent = chain.id)
        update layers set tree = (select root from chain where chain.id = layers.id)`,
      `update layers set guest = coalesce((
        select uuid from guests where instr(layers.path, '/guests/' || uuid || '/layers/') > 0), '')`,
      `update layers set guest = coalesce((
        select uuid from guests, json_each(guests.definition, '$.disks') as disk
        where json_extract(guests.definition, '$.clone') is null
          and json_extract(disk.value, '$.path') = layers.path limit 1), '') where root = 1`,
      // What a crash interrupted before is settled by those who know layers of other drivers, too.
      `update operations set plan = json_set(plan, '$.copies', json('[]'), '$.heads', (
        select json_group_array(json_set(value, '$.driver', 'overlay', '$.format', 'qcow2', '$.from', json_extract(value, '$.parent')))
        from json_each(plan, '$.heads'))) where settled = 0 and json_type(plan, '$.heads') = 'array'`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const checksums: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`create table checksums (
      path text primary key, identity text not null, sha256 text not null) strict`.execute(db);
  },
};

const tpm: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table guests add column tpm text`.execute(db);
  },
};

const verification: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      `alter table images add column verification text`,
      `create table fileSums (
        layer text unique references layers (id) on delete cascade,
        image text unique references images (id) on delete cascade,
        sha256 text not null, sizeBytes integer not null, pieces blob not null, seal text, recordedAt text not null,
        check ((layer is null) <> (image is null))) strict`,
      `create table scrubs (
        id integer primary key autoincrement, startedAt text not null, finishedAt text,
        verified integer not null default 0, damaged text not null default '[]', skipped text not null default '[]') strict`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const schedules: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      `alter table images add column protected integer not null default 0`,
      `alter table images add column schedule text`,
      `create table schedules (
        guest text not null references guests (uuid) on delete cascade, name text not null, spec text not null,
        paused integer not null, createdAt text not null, decidedUntil text not null, primary key (guest, name)) strict`,
      `create table scheduleRuns (
        id integer primary key autoincrement, guest text not null, schedule text not null, dueAt text not null,
        state text not null check (state in ('waiting', 'done', 'skipped', 'failed')), attempts integer not null,
        endedAt text, image text, operation text, message text not null, unique (guest, schedule, dueAt),
        foreign key (guest, schedule) references schedules (guest, name) on delete cascade) strict`,
      `create index scheduleRunsByState on scheduleRuns (state) where state = 'waiting'`,
      `create table retention (
        guest text primary key references guests (uuid) on delete cascade, rules text not null) strict`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const credentials: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`create table credentials (
      id text primary key, name text not null unique, kind text not null check (kind in ('token', 'certificate')),
      secretHash text not null unique, role text not null, labels text, createdAt text not null, expiresAt text not null,
      revokedAt text, lastUsedAt text) strict`.execute(db);
  },
};

/**
 * The indexes hold what is summed over all images and layers, so that a sum reads no manifest: SQLite takes the value of an
 * expression from an index that has it (https://sqlite.org/expridx.html); `statistics.ts` must write it the same way.
 */
const audit: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      `alter table operations add column caller text`,
      `create table audit (
        id integer primary key, at text not null, kind text not null check (kind in ('call', 'outcome', 'trim')), caller text,
        action text not null, guest text, image text, parameters text, outcome text not null, operation text, request text,
        message text, previous text not null, hash text not null) strict`,
      `create index auditByGuest on audit (guest, id)`,
      `create trigger auditIsNotChanged before update on audit begin select raise(abort, 'the audit trail is not changed'); end`,
      `create table writeTrial (id integer primary key check (id = 1), at text not null) strict`,
      `create index imagesByBytes on images (
        state, json_extract(manifest, '$.memoryFile.storedBytes'), json_extract(manifest, '$.screen.storedBytes'))`,
      `create index imagesByAge on images (guest, state, createdAt, verifiedAt)`,
      `create index layersByBytes on layers (id, root, json_extract(identity, '$.storedBytes'))`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const requestKeys: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      `alter table operations add column requestKey text`,
      `alter table operations add column requestHash text`,
      `create index operationsByRequest on operations (requestKey, createdAt) where requestKey is not null`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const fileOwners: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`create table fileOwners (
      path text primary key, uid integer not null, gid integer not null, mode integer not null) strict`.execute(
      db,
    );
  },
};

/**
 * Whoever changes what a record file tells marks it, in the same transaction and without having to think of it: by triggers. What
 * is told there follows from `recovery/record-files.ts`; a column that it doesn't tell needs no mark.
 */
const records: Migration = {
  async up(db: Kysely<unknown>) {
    const mark = (kind: 'guest' | 'image', id: string) =>
      `insert into records values ('${kind}', ${id}, 1, 0) on conflict (kind, id) do update set version = version + 1;`;
    const statements = [
      `create table records (
        kind text not null check (kind in ('guest', 'image')), id text not null, version integer not null,
        written integer not null, primary key (kind, id)) strict, without rowid`,
      `create index recordsUnwritten on records (kind, id) where version <> written`,
      ...[
        { table: 'guests', kind: 'guest', id: 'uuid', columns: GUEST_COLUMNS },
        { table: 'layers', kind: 'guest', id: 'guest', columns: '' },
        { table: 'heads', kind: 'guest', id: 'guest', columns: '' },
        { table: 'schedules', kind: 'guest', id: 'guest', columns: '' },
        { table: 'retention', kind: 'guest', id: 'guest', columns: '' },
        { table: 'images', kind: 'image', id: 'id', columns: '' },
        { table: 'pins', kind: 'image', id: 'image', columns: '' },
      ].flatMap(({ table, kind, id, columns }) => {
        const marks = (row: 'new' | 'old') => mark(kind === 'guest' ? 'guest' : 'image', `${row}.${id}`);
        return [
          `create trigger ${table}Inserted after insert on ${table} begin ${marks('new')} end`,
          `create trigger ${table}Updated after update ${columns} on ${table} begin ${marks('new')} end`,
          `create trigger ${table}Deleted after delete on ${table} begin ${marks('old')} end`,
        ];
      }),
      // A layer stands in the record of the guest that it was made for. Of some old ones that wasn't known.
      `update layers set guest = coalesce((
        select heads.guest from heads join layers as head on head.id = heads.layer where head.tree = layers.tree limit 1), '')
        where guest = ''`,
      `create index layersByGuest on layers (guest)`,
      `insert or ignore into records select 'guest', uuid, 1, 0 from guests`,
      `insert into records select 'image', id, 1, 0 from images`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

const GUEST_COLUMNS = 'of name, definition, instance, crashed, currentImage, tpm, frozen';

/** In order of their names, as far as they aren't made yet; a name that has shipped never changes. */
export const MIGRATIONS: Record<string, Migration> = {
  '0001-initial': initial,
  '0002-outcomes': outcomes,
  '0003-captures': captures,
  '0004-storage-drivers': storageDrivers,
  '0005-frozen': frozen,
  '0006-checksums': checksums,
  '0007-tpm': tpm,
  '0008-host-boots': hostBoots,
  '0009-verification': verification,
  '0010-schedules': schedules,
  '0011-audit': audit,
  '0012-records': records,
  '0014-credentials': credentials,
  '0015-request-keys': requestKeys,
  '0016-file-owners': fileOwners,
};
