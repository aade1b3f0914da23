/** The typed client: one method per thing Stasis can do, under the names of the proposal it grew from. */
import { DEFAULT_IMAGE } from '../api/constants.ts';
import type {
  AuditEntry,
  AuditVerdict,
  CatalogBackup,
  DiskExport,
  DiskTree,
  Doctor,
  Event,
  EventsOverview,
  Guest,
  GuestOverview,
  HostCheck,
  HostCheckRequest,
  HostOverview,
  HostStatus,
  Image,
  Operation,
  Overview,
  Policy,
  Readiness,
  SaveAllPlan,
  SavePrediction,
  SaveRequest,
} from '../api/schemas.ts';
import type { RetentionChange, RetentionPlan, ScheduleChange, ScheduleRequest } from '../api/schedules.ts';
import type {
  Credential,
  CredentialRequest,
  NewCredential,
  RemoteRequest,
  RemoteStatus,
} from '../api/remote.ts';
import { StasisError, type ErrorCode } from '../errors.ts';
import {
  followAudit,
  followEvents,
  queryOf,
  watch,
  type AuditFilter,
  type EventFilter,
  type News,
} from './event-stream.ts';
import { errorIn, readText, send, sendForJson, type Exchange, type Transport } from './exchange.ts';
import { runOperation } from './operation-stream.ts';
import type { Revive } from './reconnection.ts';
import { KEY_HEADER, sendPatiently } from './retry.ts';
import { parseWire } from './wire.ts';
import type {
  CallOptions,
  Loose,
  NotWaiting,
  Outcome,
  RestoreOptions,
  SaveOptions,
  VerifyOptions,
  Waiting,
} from './requests.ts';

/**
 * A daemon, as seen from a program. It holds no connection, so there is nothing to close.
 *
 * Every method rejects with a `StasisError`: the daemon's own, or `daemon-unreachable`. When `options.signal` is
 * aborted it rejects with the signal's reason. Methods that change something resolve with the result once the
 * work is done and reject with the operation's error when it failed or was cancelled; with `{ wait: false }`
 * they resolve with the `Operation` as soon as it is recorded. Such a request brings a key by which the daemon knows it, so when
 * its connection breaks it is sent again, as what only reads is; nothing else ever is.
 *
 * What it needs of its surroundings it is given: `StasisClient` has Node's sockets, `PageClient` a browser's fetch.
 */
export abstract class Client {
  readonly #transport: Transport;
  readonly #revive: Revive | undefined;

  protected constructor(transport: Transport, revive: Revive | undefined) {
    this.#transport = transport;
    this.#revive = revive;
  }

  // Save images -------------------------------------------------------------------------------------------------

  /**
   * Saves a guest: its memory, its devices and all its disks at one instant. Without a name it is the guest's
   * default image, which replaces the one before; without `live` the guest is stopped afterwards.
   */
  createSaveImage<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    request: SaveOptions = {},
    options?: O,
  ): Promise<Outcome<O, Image>> {
    const body = { ...request, name: nameOnTheWire(request.name) };
    return this.#mutate({ method: 'POST', path: `${guestPath(guest)}/images`, body }, imageOf, options);
  }

  /** What `createSaveImage` with `live` would cost the guest now, by each method; rejects as that would. */
  predictSave(
    guest: string,
    wish: {
      readonly method?: SaveRequest['method'] | undefined;
      readonly maxPauseMs?: number | undefined;
    } = {},
    options: CallOptions = {},
  ): Promise<SavePrediction> {
    return this.#get(`${guestPath(guest)}/prediction${queryOf(wish)}`, options);
  }

  /** Every image of a guest, or of all guests, each with its full info: one round trip. */
  listSaveImages(guest?: string, options: CallOptions = {}): Promise<Image[]> {
    return this.#get(guest === undefined ? '/v1/images' : `${guestPath(guest)}/images`, options);
  }

  /** All that is known of an image. @param name the guest's default image when it is left out. @throws `guest-not-found`, `image-not-found` */
  getSaveImageInfo(guest: string, name: string = DEFAULT_IMAGE, options: CallOptions = {}): Promise<Image> {
    return this.#get(imagePath(guest, name), options);
  }

  /** Puts a guest back to an image, or makes a new guest from it (`asNewGuest`). Resolves when the guest runs. */
  restoreSaveImage<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name?: string,
    request: RestoreOptions = {},
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    const body = { ...request, name: nameOnTheWire(name) };
    return this.#mutate({ method: 'POST', path: `${guestPath(guest)}/restore`, body }, guestOf, options);
  }

  /** Deletes an image, wherever it stands in the tree of images and whether or not the guest runs. */
  deleteSaveImage<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name: string = DEFAULT_IMAGE,
    options?: O,
  ): Promise<Outcome<O, void>> {
    return this.#mutate({ method: 'DELETE', path: imagePath(guest, name) }, nothingOf, options);
  }

  /**
   * Compares an image with what it was when it was taken and, with `boot`, restores it for a trial. Rejects with `image-damaged`
   * when it isn't sound, with each part in `details.parts`. It gives way to anything else that is to be done to the guest: it
   * rejects with `cancelled` then.
   */
  verifySaveImage<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name: string = DEFAULT_IMAGE,
    request: VerifyOptions = {},
    options?: O,
  ): Promise<Outcome<O, Image>> {
    const path = `${imagePath(guest, name)}/verify`;
    return this.#mutate({ method: 'POST', path, body: request }, imageOf, options);
  }

  /** Nothing removes the image any more: `deleteSaveImage` and all the like reject with `image-protected`. */
  protectSaveImage<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name: string = DEFAULT_IMAGE,
    options?: O,
  ): Promise<Outcome<O, Image>> {
    return this.#mutate({ method: 'POST', path: `${imagePath(guest, name)}/protect` }, imageOf, options);
  }

  /** Lets an image be deleted again, by hand and by retention. @throws `guest-not-found`, `image-not-found` */
  unprotectSaveImage<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name: string = DEFAULT_IMAGE,
    options?: O,
  ): Promise<Outcome<O, Image>> {
    return this.#mutate({ method: 'POST', path: `${imagePath(guest, name)}/unprotect` }, imageOf, options);
  }

  // Schedules and retention -------------------------------------------------------------------------------------

  /** Has a guest saved live by itself. Its schedules are listed with it. */
  addSchedule<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    schedule: Loose<Partial<ScheduleRequest>> & Pick<ScheduleRequest, 'name' | 'cron'>,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    const path = `${guestPath(guest)}/schedules`;
    return this.#mutate({ method: 'POST', path, body: schedule }, guestOf, options);
  }

  /** Changes what is given of a schedule, also whether it is paused. What was due before the change is not made up for. */
  changeSchedule<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name: string,
    change: Loose<ScheduleChange>,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate({ method: 'PUT', path: schedulePath(guest, name), body: change }, guestOf, options);
  }

  /** The images that it made stay. */
  removeSchedule<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    name: string,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate({ method: 'DELETE', path: schedulePath(guest, name) }, guestOf, options);
  }

  /** Changes what is given of the rules which of a guest's images stay. Nothing is removed by that. */
  setRetention<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    rules: Loose<RetentionChange>,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate(
      { method: 'PUT', path: `${guestPath(guest)}/retention`, body: rules },
      guestOf,
      options,
    );
  }

  /** What `prune` would do now: of a guest, or of all. */
  async planRetention(guest?: string, options: CallOptions = {}): Promise<RetentionPlan[]> {
    if (guest === undefined) return this.#get('/v1/retention', options);
    return [await this.#get<RetentionPlan>(`${guestPath(guest)}/retention`, options)];
  }

  /** Removes what a guest's rules don't keep; resolves with what became of each image that was to go. */
  prune<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    options?: O,
  ): Promise<Outcome<O, Operation['outcomes']>> {
    return this.#mutate({ method: 'POST', path: `${guestPath(guest)}/prune` }, outcomesOf, options);
  }

  // Guests ------------------------------------------------------------------------------------------------------

  /**
   * Makes a guest known.
   *
   * @param definition a parsed guest definition
   * @param directory absolute path that relative paths in the definition are relative to
   */
  defineGuest<O extends Waiting | NotWaiting = Waiting>(
    definition: unknown,
    directory?: string,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate(
      { method: 'POST', path: '/v1/guests', body: { definition, directory } },
      guestOf,
      options,
    );
  }

  /** Lets a guest leave as it came: its disks are the user's own files again. */
  undefineGuest<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    request: { readonly deleteImages?: boolean | undefined } = {},
    options?: O,
  ): Promise<Outcome<O, void>> {
    const path = `${guestPath(guest)}${queryOf({ deleteImages: request.deleteImages })}`;
    return this.#mutate({ method: 'DELETE', path }, nothingOf, options);
  }

  /** All guests that the caller may see, with their state. */
  listGuests(options: CallOptions = {}): Promise<Guest[]> {
    return this.#get('/v1/guests', options);
  }

  /** One guest, with its disks and its policy. @throws `guest-not-found` */
  getGuest(guest: string, options: CallOptions = {}): Promise<Guest> {
    return this.#get(guestPath(guest), options);
  }

  /** Starts a guest: from its default image when there is one, unless `fresh`. */
  start<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    request: { readonly fresh?: boolean | undefined } = {},
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'start', request, options);
  }

  /** Asks the guest's system to shut down, and waits until it has. */
  shutdown<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    request: { readonly timeoutSeconds?: number | undefined } = {},
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'shutdown', request, options);
  }

  /** Pulls the plug. */
  stop<O extends Waiting | NotWaiting = Waiting>(guest: string, options?: O): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'stop', undefined, options);
  }

  /** Stops the guest's processors; its memory stays where it is. @throws `guest-not-found`, `invalid-state` */
  pause<O extends Waiting | NotWaiting = Waiting>(guest: string, options?: O): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'pause', undefined, options);
  }

  /** Lets a paused guest run on. @throws `guest-not-found`, `invalid-state` */
  resume<O extends Waiting | NotWaiting = Waiting>(guest: string, options?: O): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'resume', undefined, options);
  }

  /** Presses the reset button. */
  reset<O extends Waiting | NotWaiting = Waiting>(guest: string, options?: O): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'reset', undefined, options);
  }

  /** Changes what is given of the policy, and keeps the rest. */
  setPolicy<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    policy: Loose<Partial<Policy>>,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate(
      { method: 'PUT', path: `${guestPath(guest)}/policy`, body: policy },
      guestOf,
      options,
    );
  }

  /** Changes who may see a guest, where not everybody may see all. */
  setLabels<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    labels: readonly string[],
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    const path = `${guestPath(guest)}/labels`;
    return this.#mutate({ method: 'PUT', path, body: { labels } }, guestOf, options);
  }

  /**
   * Has a guest run by another QEMU of the host from its next start or restore on.
   * @param build its name in the host's settings; null: the usual one
   */
  setQemu<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    build: string | null,
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate(
      { method: 'PUT', path: `${guestPath(guest)}/qemu`, body: { build } },
      guestOf,
      options,
    );
  }

  // Disks -------------------------------------------------------------------------------------------------------

  /** Every disk of a guest with all its layers and what holds each: one round trip. */
  listDisks(guest: string, options: CallOptions = {}): Promise<DiskTree[]> {
    return this.#get(`${guestPath(guest)}/disks`, options);
  }

  /**
   * Copies what a guest's disks lack up into the layers it writes to, so that reading goes through no others. The images
   * stay as they are. It gives way to anything else that is to be done to the guest: it rejects with `cancelled` then.
   */
  compactDisks<O extends Waiting | NotWaiting = Waiting>(
    guest: string,
    request: { readonly disk?: string | undefined; readonly bytesPerSecond?: number | undefined } = {},
    options?: O,
  ): Promise<Outcome<O, Guest>> {
    return this.#act(guest, 'compact', request, options);
  }

  /** Has a disk of an image served on the daemon's host. It ends by itself when no client comes. */
  protected serveDisk(
    guest: string,
    image: string,
    request: { readonly disk?: string | undefined },
    options: Waiting,
  ): Promise<DiskExport> {
    const exchange: Exchange = { method: 'POST', path: `${imagePath(guest, image)}/export`, body: request };
    return this.#mutate(exchange, exportOf, options);
  }

  /** Tells that the first client of an export has connected: from then on it ends with its last one. */
  protected async claimExport(id: string): Promise<void> {
    const exchange: Exchange = { method: 'POST', path: `/v1/exports/${encodeURIComponent(id)}/claim` };
    await readText(await send(this.#transport, exchange), exchange);
  }

  // Operations and events ---------------------------------------------------------------------------------------

  /** Running ones first, then newest first. */
  listOperations(options: CallOptions = {}): Promise<Operation[]> {
    return this.#get('/v1/operations', options);
  }

  /** An operation, also one that has ended long ago. @throws `operation-not-found` */
  getOperation(id: string, options: CallOptions = {}): Promise<Operation> {
    return this.#get(operationPath(id), options);
  }

  /** Waits for the end of an operation and resolves with it, however it ended. */
  followOperation(id: string, options: Waiting = {}): Promise<Operation> {
    return this.#run({ method: 'GET', path: operationPath(id), signal: options.signal }, options);
  }

  /** Asks an operation to undo itself. It has ended when `followOperation` says so. */
  cancelOperation(id: string, options: CallOptions = {}): Promise<Operation> {
    return sendForJson(this.#transport, {
      method: 'DELETE',
      path: operationPath(id),
      signal: options.signal,
    });
  }

  /** The same, and waits for its end: resolves with it, however it ended. */
  undoOperation(id: string, options: Waiting = {}): Promise<Operation> {
    return this.#run({ method: 'DELETE', path: operationPath(id), signal: options.signal }, options);
  }

  /** What happened last, the newest event at the end. @param filter.limit at most so many; 100 when it is left out */
  listEvents(filter: { guest?: string; limit?: number } = {}, options: CallOptions = {}): Promise<Event[]> {
    return this.#get(`/v1/events${queryOf(filter)}`, options);
  }

  /** Events as they happen, until the loop is left: `for await (const event of client.events()) …`. */
  events(filter: EventFilter = {}, options: CallOptions = {}): AsyncIterable<Event> {
    return followEvents(this.#transport, filter, { signal: options.signal, revive: this.#revive });
  }

  /** Events as they happen, and every change of what is under way: what a page needs to stay true. */
  watch(since: number, options: CallOptions = {}): AsyncIterable<News> {
    return watch(this.#transport, since, options.signal);
  }

  // The host ----------------------------------------------------------------------------------------------------

  /** All guests and what is under way on them, and all images too if that is asked for: one round trip. */
  overview(request: { readonly images?: boolean } = {}, options: CallOptions = {}): Promise<Overview> {
    return this.#get(`/v1/overview${queryOf({ ...request })}`, options);
  }

  /** A guest with its images and operations: one round trip. */
  guestOverview(guest: string, options: CallOptions = {}): Promise<GuestOverview> {
    return this.#get(`${guestPath(guest)}/overview`, options);
  }

  /** The host and what it can do: one round trip. */
  hostOverview(options: CallOptions = {}): Promise<HostOverview> {
    return this.#get('/v1/host/overview', options);
  }

  /** The newest events, and who did what: one round trip. */
  eventsOverview(options: CallOptions = {}): Promise<EventsOverview> {
    return this.#get('/v1/events/overview', options);
  }

  /** What the daemon did when its host was started and is stopped, its pid, and what it has under way. */
  hostStatus(options: CallOptions = {}): Promise<HostStatus> {
    return this.#get('/v1/host', options);
  }

  /**
   * Ends all guests as their policies say, as for a shutdown of the host. Resolves with how it went for each, rejects when one was
   * not ended as it should (`details.guests` says the same then).
   */
  saveAll<O extends Waiting | NotWaiting = Waiting>(
    request: { readonly budgetSeconds?: number | undefined } = {},
    options?: O,
  ): Promise<Outcome<O, Operation['outcomes']>> {
    return this.#mutate({ method: 'POST', path: '/v1/host/save-all', body: request }, outcomesOf, options);
  }

  /** What `saveAll` would do now. */
  planSaveAll(
    request: { readonly budgetSeconds?: number | undefined } = {},
    options: CallOptions = {},
  ): Promise<SaveAllPlan> {
    return this.#get(`/v1/host/save-all/plan${queryOf(request)}`, options);
  }

  /** Starts all guests as their policies say, as for a boot of the host; resolves and rejects as `saveAll`. */
  restoreAll<O extends Waiting | NotWaiting = Waiting>(
    options?: O,
  ): Promise<Outcome<O, Operation['outcomes']>> {
    return this.#mutate({ method: 'POST', path: '/v1/host/restore-all' }, outcomesOf, options);
  }

  /** What this host can do, what it can't, and how to enable it. */
  doctor(options: CallOptions = {}): Promise<Doctor> {
    return this.#get('/v1/doctor', options);
  }

  /** Access from other machines: whether it is on, and where. */
  remoteStatus(options: CallOptions = {}): Promise<RemoteStatus> {
    return this.#get('/v1/remote', options);
  }

  /** Lets other machines in, from now on and after each start of the daemon. */
  turnOnRemote(request: RemoteRequest, options: CallOptions = {}): Promise<RemoteStatus> {
    const exchange: Exchange = { method: 'PUT', path: '/v1/remote', body: request, signal: options.signal };
    return sendForJson(this.#transport, exchange);
  }

  /** Lets no other machine in any more. */
  turnOffRemote(options: CallOptions = {}): Promise<RemoteStatus> {
    return sendForJson(this.#transport, { method: 'DELETE', path: '/v1/remote', signal: options.signal });
  }

  /** Copies the catalog while the daemon goes on, to a file on its host: the newest few are kept. */
  backUpCatalog(options: CallOptions = {}): Promise<CatalogBackup> {
    const exchange: Exchange = { method: 'POST', path: '/v1/catalog/backups', signal: options.signal };
    return sendForJson(this.#transport, exchange);
  }

  /** A backup's content: an SQLite database. */
  async *readCatalogBackup(
    name: string,
    options: CallOptions = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const path = `/v1/catalog/backups/${encodeURIComponent(name)}`;
    yield* (await send(this.#transport, { method: 'GET', path, signal: options.signal })).body;
  }

  /** Who is let in from other machines; no secret is among it. */
  listCredentials(options: CallOptions = {}): Promise<Credential[]> {
    return this.#get('/v1/credentials', options);
  }

  /** A new token or certificate. The secret in the answer is told this once. */
  grantCredential(request: CredentialRequest, options: CallOptions = {}): Promise<NewCredential> {
    const exchange: Exchange = {
      method: 'POST',
      path: '/v1/credentials',
      body: request,
      signal: options.signal,
    };
    return sendForJson(this.#transport, exchange);
  }

  /** Lets nobody in by it any more. @returns all credentials as they are then */
  revokeCredential(name: string, options: CallOptions = {}): Promise<Credential[]> {
    const path = `/v1/credentials/${encodeURIComponent(name)}`;
    return sendForJson(this.#transport, { method: 'DELETE', path, signal: options.signal });
  }

  /**
   * Which images could be restored, and which guests started, by this QEMU or another, and why not.
   *
   * @param request `binary`: path of another QEMU on the daemon's host; `build`: its name in the settings
   */
  checkHost(request: Loose<HostCheckRequest> = {}, options: CallOptions = {}): Promise<HostCheck> {
    const exchange: Exchange = {
      method: 'POST',
      path: '/v1/host/check',
      body: request,
      signal: options.signal,
    };
    return sendForJson(this.#transport, exchange);
  }

  /** Can the daemon do its work, and why not. */
  async readiness(options: CallOptions = {}): Promise<Readiness> {
    const exchange: Exchange = { method: 'GET', path: '/readyz', signal: options.signal };
    const reply = await this.#transport.send(exchange);
    const text = await readText(reply, exchange);
    // What is not ready says so in the same form.
    if (reply.status !== 200 && reply.status !== 503) throw errorIn(reply.status, text);
    return parseWire<Readiness>(text);
  }

  /** Metrics in Prometheus' text format. */
  async metrics(options: CallOptions = {}): Promise<string> {
    const exchange: Exchange = { method: 'GET', path: '/metrics', signal: options.signal };
    return readText(await send(this.#transport, exchange), exchange);
  }

  /** Who did what: the newest entries, oldest of them first; with `after`, the first ones after that id. */
  listAudit(
    filter: AuditFilter & { readonly limit?: number } = {},
    options: CallOptions = {},
  ): Promise<AuditEntry[]> {
    return this.#get(`/v1/audit${queryOf({ ...filter })}`, options);
  }

  /** Entries as they come, until the loop is left. */
  followAudit(filter: AuditFilter = {}, options: CallOptions = {}): AsyncIterable<AuditEntry> {
    return followAudit(this.#transport, filter, { signal: options.signal, revive: this.#revive });
  }

  /** Whether the trail is as it was written. @param request.expect a hash that was the newest once */
  verifyAudit(
    request: { readonly expect?: string | undefined } = {},
    options: CallOptions = {},
  ): Promise<AuditVerdict> {
    return this.#get(`/v1/audit/verification${queryOf(request)}`, options);
  }

  // ---------------------------------------------------------------------------------------------------------------

  #get<T extends object>(path: string, options: CallOptions): Promise<T> {
    return sendPatiently<T>(this.#transport, { method: 'GET', path, signal: options.signal }, this.#revive);
  }

  #act<O extends Waiting | NotWaiting>(
    guest: string,
    action: string,
    body: unknown,
    options: O | undefined,
  ): Promise<Outcome<O, Guest>> {
    return this.#mutate({ method: 'POST', path: `${guestPath(guest)}/${action}`, body }, guestOf, options);
  }

  async #mutate<O extends Waiting | NotWaiting, Result>(
    request: Exchange,
    resultOf: (operation: Operation) => Result,
    options: O | undefined,
  ): Promise<Outcome<O, Result>> {
    const headers = { [KEY_HEADER]: options?.idempotencyKey ?? crypto.randomUUID() };
    const exchange: Exchange = { ...request, headers, signal: options?.signal };
    const outcome =
      options?.wait === false
        ? await sendPatiently<Operation>(this.#transport, exchange, this.#revive)
        : resultOf(succeeded(await this.#run(exchange, options)));
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- TypeScript can't follow `Outcome` through a branch
    return outcome as Outcome<O, Result>;
  }

  #run(exchange: Exchange, options: Waiting | undefined): Promise<Operation> {
    return runOperation(this.#transport, exchange, { onProgress: options?.onProgress, revive: this.#revive });
  }
}

/**
 * The operation, if it did what it was asked to.
 *
 * @throws the operation's own error when it failed or was cancelled
 */
function succeeded(operation: Operation): Operation {
  if (operation.state === 'done') return operation;
  if (operation.error !== null) throw StasisError.fromJSON(operation.error);
  const code = operation.state === 'cancelled' ? 'cancelled' : 'internal';
  throw new StasisError(code, `${operation.kind} of ${operation.guest}: ${operation.state}`, {
    guest: operation.guest,
    details: { operation: operation.id },
  });
}

function guestOf(operation: Operation): Guest {
  return operation.result.guest ?? gone(operation, 'guest', 'guest-not-found');
}

function imageOf(operation: Operation): Image {
  return operation.result.image ?? gone(operation, 'image', 'image-not-found');
}

function outcomesOf(operation: Operation): Operation['outcomes'] {
  return operation.outcomes;
}

function exportOf(operation: Operation): DiskExport {
  return operation.result.export ?? gone(operation, 'export', 'not-found');
}

function nothingOf(): void {}

/** A host that boots right after a save lets the guest go on from its default image, and that is consumed. */
function gone({ id, kind, guest, image }: Operation, what: string, code: ErrorCode): never {
  throw new StasisError(
    code,
    `the ${kind} of ${guest} is done, but its ${what} is not there any more: the guest went on from it, or somebody removed it`,
    { guest, ...(image === null ? {} : { image }), details: { operation: id } },
  );
}

/** The default image has a name to be listed by; to save or restore it is to name none. */
function nameOnTheWire(name: string | undefined): string | undefined {
  return name === DEFAULT_IMAGE ? undefined : name;
}

export function guestPath(guest: string): string {
  return `/v1/guests/${encodeURIComponent(guest)}`;
}

function imagePath(guest: string, image: string): string {
  return `${guestPath(guest)}/images/${encodeURIComponent(image)}`;
}

function schedulePath(guest: string, schedule: string): string {
  return `${guestPath(guest)}/schedules/${encodeURIComponent(schedule)}`;
}

function operationPath(id: string): string {
  return `/v1/operations/${encodeURIComponent(id)}`;
}
