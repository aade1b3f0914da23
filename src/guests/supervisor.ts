/**
 * Which QEMU process is which guest, and what state it is in. Processes are detached and outlive the daemon; the
 * supervisor finds them again by their run directory, checks that they are who they should be, and notices when
 * one ends that nobody asked to.
 */
import { EventEmitter } from 'node:events';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { CatalogDatabase } from '../catalog/database.ts';
import {
  clearInstance,
  getGuestByUuid,
  listGuests,
  setStateReason,
  type GuestRecord,
} from '../catalog/guests.ts';
import { setIdentity } from '../catalog/layers.ts';
import { StasisError, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { EventLog } from '../operations/event-log.ts';
import type { MigrationProgress } from '../qemu/migration.ts';
import { bringMemory, isAbandoned, memoryArrived } from '../qemu/restore/memory-arrival.ts';
import { readPagerRequest } from '../qemu/pager/pager-files.ts';
import { memoryFileOf } from '../qemu/restore/mapped.ts';
import { isolated } from '../qemu/process/isolation.ts';
import { removeShared } from '../qemu/process/run-files.ts';
import { resumeGuest } from '../qemu/process/run-state.ts';
import { runAs } from '../qemu/process/user.ts';
import { removeEmptyTpm, startTpm, TPM_SOCKET } from '../qemu/tpm.ts';
import { attachQemu, killQemu, lastWords, launchQemu, type QemuProcess } from '../qemu/process/process.ts';
import type { Drivers } from '../storage/drivers.ts';
import { syncDirectory } from '../storage/durable.ts';
import { headIds, identityToSeal } from './disks.ts';
import type { Ownership } from './ownership.ts';

export interface Run {
  readonly state: 'running' | 'paused';
  /** why it stands still, when nobody asked it to */
  readonly reason: string | null;
}

interface LiveGuest {
  readonly uuid: string;
  readonly instance: string;
  readonly process: QemuProcess;
  /** settles when it has all of its memory, or is ended; at once unless it was restored lazily */
  memory: Promise<void>;
  runState: Run['state'];
  /** why it stands still, when nobody asked it to */
  reason: string | null;
  /** its end has been asked for */
  ending: boolean;
  /** the file that its memory is mapped from, when it is */
  readonly memoryFile: string | undefined;
}

export interface SupervisorOptions {
  readonly catalog: CatalogDatabase;
  readonly drivers: Drivers;
  readonly events: EventLog;
  readonly log: Log;
  readonly runDirectory: string;
  readonly ownership: Ownership;
}

/** What a process is to be. */
export interface Machine {
  /** the emulator's path */
  readonly binary: string;
  readonly args: readonly string[];
  /** where the state of its TPM is, when it has one */
  readonly tpmDirectory?: string | undefined;
  /** in a network namespace of its own */
  readonly isIsolated?: boolean;
  /** it has a card in a bridge */
  readonly startsHelper?: boolean;
}

const TPM_LOST =
  'what the TPM stored was not yet on the disk when the host went down: it begins anew; a restore brings back that of an image';

/** So long after it the end of a guest that could not be recorded is tried to be again. */
const RETRY_MS = 2_000;

/** Run states of QEMU in which the guest can't go on by itself, in words. */
const HALTED: Record<string, string> = {
  'io-error': 'a disk reported an error, most likely no space; free some and `stasis resume`',
  'internal-error': 'QEMU reported an internal error',
  'guest-panicked': 'the guest panicked',
};

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #live = new Map<string, LiveGuest>();
  /** launched, not yet anybody's guest, by instance */
  readonly #candidates = new Map<string, QemuProcess>();
  /** directories of TPMs that may not be on the disk yet, by instance */
  readonly #newTpms = new Map<string, string>();
  readonly #ended = new EventEmitter<Record<string, []>>().setMaxListeners(0);
  readonly #letGo = new AbortController();

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** The process of a guest, if it has one. */
  find(uuid: string): QemuProcess | undefined {
    return this.#live.get(uuid)?.process;
  }

  /** The same, for who recovers: a process that has just died is first recorded as that. */
  async findAlive(uuid: string): Promise<QemuProcess | undefined> {
    if (this.find(uuid)?.qmp.isClosed === true) await this.whenEnded(uuid);
    return this.find(uuid);
  }

  /** @throws StasisError `invalid-state` when the guest has no process */
  get(uuid: string, guestName: string): QemuProcess {
    const process = this.find(uuid);
    if (process === undefined) {
      throw new StasisError(
        'invalid-state',
        `guest ${guestName} is not running; \`stasis start ${guestName}\` starts it`,
        { guest: guestName },
      );
    }
    return process;
  }

  /** What the process of a guest does, if it has one. */
  run(uuid: string): Run | undefined {
    const live = this.#live.get(uuid);
    return live && { state: live.runState, reason: live.reason };
  }

  liveGuests(): string[] {
    return [...this.#live.keys()];
  }

  /** The guests whose memory is mapped from a file: it keeps its space on the disk as long as they run. */
  mappedFrom(file: string): string[] {
    return [...this.#live.values()].filter(({ memoryFile }) => memoryFile === file).map(({ uuid }) => uuid);
  }

  /** All files that guests' memory is mapped from. */
  mappedFiles(): string[] {
    return [...this.#live.values()].flatMap(({ memoryFile }) => memoryFile ?? []);
  }

  instanceDirectory(instance: string): string {
    return join(this.#options.runDirectory, 'guests', instance.slice(0, 12));
  }

  /** Starts a process for a guest. It is not the guest's process until it is `adopt`ed. */
  async launch(
    instance: string,
    { binary, args, tpmDirectory, isIsolated = false, startsHelper = false }: Machine,
    signal: AbortSignal,
  ): Promise<QemuProcess> {
    const runDirectory = this.instanceDirectory(instance);
    const { ownership } = this.#options;
    await ownership.makeShared(runDirectory);
    if (tpmDirectory !== undefined) {
      if (await removeEmptyTpm(tpmDirectory)) this.#options.log.warn({ tpm: tpmDirectory }, TPM_LOST);
      await ownership.makeTheirs(tpmDirectory);
      await startTpm(runDirectory, tpmDirectory, signal, runAs(ownership.user));
      this.#newTpms.set(instance, tpmDirectory);
    }
    const startedBy = [
      ...(isIsolated ? isolated() : []),
      ...runAs(ownership.user, { startsHelper, ownsNetwork: isIsolated }),
    ];
    const process = await ownership.explained(launchQemu({ binary, args, runDirectory, signal, startedBy }));
    this.#candidates.set(instance, process);
    return process;
  }

  /** Starts a TPM that no QEMU is going to have; it keeps nothing beyond its `discard`. @returns where it listens */
  async launchTpm(instance: string, signal: AbortSignal): Promise<string> {
    const runDirectory = this.instanceDirectory(instance);
    const { ownership } = this.#options;
    await ownership.makeShared(runDirectory);
    await startTpm(runDirectory, runDirectory, signal, runAs(ownership.user));
    return join(runDirectory, TPM_SOCKET);
  }

  /** The process behind an instance, which may be gone: known, or found again after a crash of the daemon. */
  async attach(instance: string, uuid: string): Promise<QemuProcess | undefined> {
    const live = this.#live.get(uuid);
    if (live?.instance === instance) return live.process;
    const candidate = this.#candidates.get(instance);
    if (candidate !== undefined) return candidate.qmp.isClosed ? undefined : candidate;
    return attachQemu(this.instanceDirectory(instance), { expectedUuid: uuid });
  }

  /** Makes sure that nothing is left of an instance. Repeatable. */
  async discard(instance: string): Promise<void> {
    this.#candidates.delete(instance);
    this.#newTpms.delete(instance);
    const directory = this.instanceDirectory(instance);
    await killQemu(directory);
    await removeShared(directory);
  }

  /** From now on this process is the guest; one that was before is ended. */
  async adopt(uuid: string, instance: string, process: QemuProcess): Promise<void> {
    const before = this.#live.get(uuid);
    if (before?.instance === instance) return this.#makeTpmDurable(instance);
    if (before !== undefined) await this.giveUp(uuid);
    const memoryFile = await memoryFileOf(process.qmp);
    const live: LiveGuest = {
      ...{ uuid, instance, process, memoryFile },
      ...{ runState: 'paused', reason: null, ending: false, memory: Promise.resolve() },
    };
    this.#live.set(uuid, live);
    this.#candidates.delete(instance);
    void this.#follow(live);
    live.memory = this.#followMemory(live);
    await this.#query(live);
    await this.#makeTpmDurable(instance);
  }

  /** swtpm doesn't wait until what it stores is on the disk: what an image brought must be there before the image may go. */
  async #makeTpmDurable(instance: string): Promise<void> {
    const directory = this.#newTpms.get(instance);
    if (directory !== undefined) await syncDirectory(directory);
    this.#newTpms.delete(instance);
  }

  /** Ends a guest's process, if it has one, and leaves the catalog alone: another process takes its place. */
  async giveUp(uuid: string): Promise<void> {
    const live = this.#live.get(uuid);
    if (live === undefined) return;
    await endProcess(live);
    this.#forget(live);
    this.#ended.emit(live.instance);
  }

  #forget(live: LiveGuest): void {
    if (this.#live.get(live.uuid) === live) this.#live.delete(live.uuid);
  }

  /** Ends the process that was a guest before `instance`; the catalog names the new one already. Repeatable. */
  async replace(uuid: string, before: string | null, instance: string): Promise<void> {
    if (this.#live.get(uuid)?.instance !== instance) await this.giveUp(uuid);
    if (before !== null) await this.discard(before);
  }

  /**
   * Ends a guest's process and records that it has none. Repeatable.
   * @param cause why it ended, when nobody asked for it
   */
  async end(uuid: string, cause: string | null = null): Promise<void> {
    // It may have ended by itself and been recorded as that meanwhile; then that is what is acknowledged.
    while (!(await this.#end(await getGuestByUuid(this.#options.catalog, uuid), cause)));
  }

  /** The same for one that ends by itself: whoever takes its place meanwhile is left alone. */
  async #endLive(live: LiveGuest, cause: string | null = null): Promise<void> {
    const record = await getGuestByUuid(this.#options.catalog, live.uuid);
    if (record.instance === live.instance) await this.#end(record, cause);
  }

  /** @returns false when the guest is another process than `record` says by now, or none; then nothing is recorded */
  async #end({ uuid, name, instance }: GuestRecord, cause: string | null): Promise<boolean> {
    const crash = cause === null ? null : await this.#withLastWords(cause, instance);
    const known = this.#live.get(uuid);
    const live = known?.instance === instance ? known : undefined;
    let isRecorded: boolean;
    try {
      if (live !== undefined) await endProcess(live);
      if (instance !== null) await this.discard(instance);
      isRecorded = await this.#recordEnd({ uuid, name, instance }, crash);
    } finally {
      // Not before: one that the catalog says to have a process, and that isn't known, is told as one that doesn't answer.
      if (live !== undefined) this.#forget(live);
    }
    if (instance !== null) this.#ended.emit(instance);
    if (!isRecorded) return false;
    const message = crash === null ? `${name} stopped` : `${name} crashed: ${crash}`;
    const action = crash === null ? 'stopped' : 'crashed';
    await this.#options.events.publish({ type: 'guest', action, guest: name, message });
    return true;
  }

  /** As soon as that is recorded the guest may be started again, and who starts it breaks the seals: they are set in the same moment. */
  async #recordEnd(
    { uuid, name, instance }: Pick<GuestRecord, 'uuid' | 'name' | 'instance'>,
    crash: string | null,
  ): Promise<boolean> {
    const { catalog } = this.#options;
    if ((await getGuestByUuid(catalog, uuid)).instance !== instance) return false;
    const seals = await this.#sealsOf(uuid, name);
    return catalog.transaction().execute(async (transaction) => {
      if (!(await clearInstance(transaction, uuid, instance, crash))) return false;
      for (const [layer, identity] of seals) await setIdentity(transaction, layer, identity);
      return true;
    });
  }

  /** What a guest's heads are sealed with. A disk that is gone is told of when it is used next. */
  async #sealsOf(uuid: string, name: string): Promise<ReadonlyMap<string, string>> {
    const seals = new Map<string, string>();
    for (const { disk, layer } of await headIds(this.#options.catalog, uuid)) {
      try {
        seals.set(layer, await identityToSeal(this.#options, layer));
      } catch (error) {
        this.#options.log.warn({ err: error, guest: name, disk }, 'a disk can not be sealed');
      }
    }
    return seals;
  }

  /** QEMU tells in its log, and nowhere else, why it gave up or who sent it a signal; the log goes with its run directory. */
  async #withLastWords(cause: string, instance: string | null): Promise<string> {
    const said = instance === null ? undefined : await lastWords(this.instanceDirectory(instance));
    return said === undefined ? cause : `${cause}. The last that QEMU said: ${said}`;
  }

  /** Resolves when the guest's process has ended and been recorded; at once when it has none. */
  async whenEnded(uuid: string, signal?: AbortSignal): Promise<void> {
    const live = this.#live.get(uuid);
    if (live === undefined) return;
    const ended = Promise.withResolvers<void>();
    const abort = () => ended.reject(signal?.reason);
    this.#ended.once(live.instance, ended.resolve);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      signal?.throwIfAborted();
      await ended.promise;
    } finally {
      this.#ended.off(live.instance, ended.resolve);
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Resolves when a guest has all of its memory, and QEMU is ready for a capture; at once unless it was restored lazily.
   * @throws StasisError `cancelled`, `guest-crashed`
   */
  async memoryArrived(
    uuid: string,
    options: { signal?: AbortSignal; onProgress?: (progress: MigrationProgress) => void } = {},
  ): Promise<void> {
    const live = this.#live.get(uuid);
    if (live === undefined) return;
    await memoryArrived(live.process, options);
    await live.memory;
  }

  /** Resolves when no guest needs the memory file in this directory any more, from which it is being restored lazily. */
  async memoryArrivedFrom(imageDirectory: string): Promise<void> {
    const readers = [...this.#live.values()].map(async ({ process, memory }) => {
      const request = await readPagerRequest(process.runDirectory);
      if (request !== undefined && dirname(request.file) === imageDirectory) await memory;
    });
    await Promise.all(readers);
  }

  /** Finds the processes of a former daemon again. Called once, at start. @param cause why those that are gone ended */
  async reconnect(cause: string): Promise<void> {
    const guests = await listGuests(this.#options.catalog);
    await Promise.all(guests.map((guest) => this.#reconnect(guest, cause)));
  }

  async #reconnect({ uuid, name, instance }: GuestRecord, cause: string): Promise<void> {
    if (instance === null) return;
    try {
      const process = await this.attach(instance, uuid);
      if (process === undefined) return await this.end(uuid, cause);
      await setStateReason(this.#options.catalog, uuid, null);
      await this.adopt(uuid, instance, process);
    } catch (error) {
      // It may be slow, or stopped by somebody: never a reason to end a guest. It is known, and left to a person.
      this.#options.log.error({ err: error, guest: name }, 'the guest can not be reached');
      const reason = (await isAbandoned(this.instanceDirectory(instance)))
        ? `the pager that brought its memory ended while no daemon watched it, and QEMU does not answer; restore it again`
        : `its QEMU process does not answer (${messageOf(error)}); \`stasis stop ${name}\` ends it`;
      await setStateReason(this.#options.catalog, uuid, reason);
    }
  }

  /** Lets go of all processes, which run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#letGo.abort();
    const all = [...[...this.#live.values()].map((live) => live.process), ...this.#candidates.values()];
    this.#live.clear();
    this.#candidates.clear();
    await Promise.all(all.map((process) => process[Symbol.asyncDispose]()));
  }

  /** Lets a guest run, and knows it. @throws StasisError `invalid-state` when it has no process */
  async resume(uuid: string, guestName: string): Promise<void> {
    await resumeGuest(this.get(uuid, guestName).qmp);
    await this.#refresh(uuid);
  }

  /** Lets a guest stand still, and knows it. @throws StasisError `invalid-state` when it has no process */
  async pause(uuid: string, guestName: string): Promise<void> {
    await this.get(uuid, guestName).qmp.execute('stop');
    await this.#refresh(uuid);
  }

  async #refresh(uuid: string): Promise<void> {
    const live = this.#live.get(uuid);
    if (live !== undefined) await this.#query(live);
  }

  /** For failpoints: what `kill -9` of QEMU would do, to the guest and to all that are about to be one. */
  async kill(uuid: string): Promise<void> {
    const live = this.#live.get(uuid);
    for (const { pid, qmp } of [
      ...(live === undefined ? [] : [live.process]),
      ...this.#candidates.values(),
    ]) {
      process.kill(pid, 'SIGKILL');
      await qmp.closed;
    }
  }

  /** Keeps a guest's state as QEMU tells it, until its process ends. Never rejects: it is its own owner. */
  async #follow(live: LiveGuest): Promise<void> {
    const { qmp } = live.process;
    using events = qmp.watch('STOP', 'RESUME', 'SHUTDOWN');
    for (;;) {
      try {
        await events.next();
        await this.#query(live);
      } catch (error) {
        if (qmp.isClosed) return this.#closed(live);
        this.#options.log.error(
          { err: error, guest: live.uuid },
          'the state of a guest could not be recorded',
        );
      }
    }
  }

  /** Sees to it that a guest gets all of its memory, or is ended with the reason. Never rejects. */
  async #followMemory(live: LiveGuest): Promise<void> {
    const { catalog, events, log } = this.#options;
    try {
      await bringMemory(live.process, async (reason) => {
        const { name } = await getGuestByUuid(catalog, live.uuid);
        const message = `the pager that brings ${name} its memory ended (${reason}); another one takes over`;
        log.warn({ guest: name, reason }, 'a pager ended');
        await events.publish({ type: 'guest', action: 'pager-replaced', guest: name, message });
      });
    } catch (error) {
      if (live.ending || live.process.qmp.isClosed) return;
      log.error({ err: error, guest: live.uuid }, 'the memory of a guest does not arrive');
      await this.#endLive(live, messageOf(error)).catch((failure: unknown) =>
        log.error({ err: failure, guest: live.uuid }, 'the end of a guest could not be recorded'),
      );
    }
  }

  async #query(live: LiveGuest): Promise<void> {
    const { status } = await live.process.qmp.execute('query-status');
    const before = `${live.runState} ${live.reason}`;
    live.runState = status === 'running' ? 'running' : 'paused';
    live.reason = HALTED[status] ?? null;
    if (this.#live.get(live.uuid) !== live || live.ending) return;
    if (status === 'shutdown') return this.#endLive(live);
    if (before === `${live.runState} ${live.reason}`) return;
    const { name } = await getGuestByUuid(this.#options.catalog, live.uuid);
    const message = `${name} is ${live.runState}${live.reason === null ? '' : `: ${live.reason}`}`;
    await this.#options.events.publish({ type: 'guest', action: live.runState, guest: name, message });
  }

  /** Until it can be recorded, say for want of space, the guest is not known to have ended: it is tried again. */
  async #closed(live: LiveGuest): Promise<void> {
    if (live.ending || this.#live.get(live.uuid) !== live) return;
    const { signal } = await live.process.exited;
    const cause = causeOfDeath(signal, live.memoryFile);
    while (!(await this.#triesToEnd(live, cause)))
      await delay(RETRY_MS, undefined, { ref: false, signal: this.#letGo.signal }).catch(() => undefined);
  }

  /** @returns true when there is nothing more to record */
  async #triesToEnd(live: LiveGuest, cause: string): Promise<boolean> {
    if (this.#letGo.signal.aborted) return true;
    try {
      await this.#endLive(live, cause);
      return true;
    } catch (error) {
      this.#options.log.error({ err: error, guest: live.uuid }, 'the end of a guest could not be recorded');
      return false;
    }
  }
}

async function endProcess(live: LiveGuest): Promise<void> {
  live.ending = true;
  await killQemu(live.process.runDirectory);
  await removeShared(live.process.runDirectory);
}

/** A read error on a mapped file reaches a process as SIGBUS, which nothing survives. */
function causeOfDeath(signal: NodeJS.Signals | null, memoryFile: string | undefined): string {
  const how = signal === null ? 'its QEMU process ended unexpectedly' : `its QEMU process ended by ${signal}`;
  if (memoryFile === undefined || (signal !== 'SIGBUS' && signal !== null)) return how;
  const blame = signal === null ? 'if by SIGBUS, then because' : 'which means that';
  return `${how}, ${blame} the memory file that its memory was mapped from, ${memoryFile}, could not be read; look for errors of its disk, and restore the image with --eager to see whether it is whole`;
}
