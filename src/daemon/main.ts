/**
 * The daemon's life: take the home, find the guests, finish or undo what was under way, serve, and let go. It may be
 * killed at any instruction; the next one begins here.
 */
import { once } from 'node:events';
import { write } from 'node:fs';
import { chmod, mkdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Logger } from 'pino';
import { openCatalog } from '../catalog/database.ts';
import { reserveRoom } from '../catalog/reserve.ts';
import { StasisError, messageOf } from '../errors.ts';
import { bootProcedure } from '../guests/boot.ts';
import { qemuProcedure } from '../guests/build.ts';
import { defineProcedure, policyProcedure } from '../guests/define.ts';
import { DiskReaders } from '../guests/disk-readers.ts';
import { thawAll } from '../guests/frozen.ts';
import type { Host } from '../guests/host.ts';
import { labelsProcedure } from '../guests/labels.ts';
import { Ownership } from '../guests/ownership.ts';
import {
  pauseProcedure,
  resetProcedure,
  resumeProcedure,
  shutdownProcedure,
  stopProcedure,
} from '../guests/power.ts';
import { allDrivers } from '../storage/drivers.ts';
import { Supervisor } from '../guests/supervisor.ts';
import { cloneProcedure } from '../images/clone.ts';
import { collectProcedure } from '../images/collect.ts';
import { deleteProcedure } from '../images/delete.ts';
import { compactProcedure } from '../images/compact.ts';
import { exportProcedure } from '../images/export.ts';
import { protectProcedure } from '../images/protect.ts';
import { restoreProcedure } from '../images/restore.ts';
import { saveProcedure } from '../images/save.ts';
import { lookOnce, watchLost } from '../images/lost.ts';
import { KERNEL_BOOT_ID, readBootId } from '../policy/boot-id.ts';
import { SYSTEM_CLOCK } from '../policy/clock.ts';
import { recognizeBoot } from '../policy/host-boot.ts';
import { HOST, saveAllProcedure } from '../policy/save-all.ts';
import { pruneProcedure } from '../policy/prune.ts';
import { restoreAllProcedure } from '../policy/restore-all.ts';
import { Scrubber } from '../policy/scrub.ts';
import { retentionProcedure, scheduleProcedure } from '../policy/schedule-changes.ts';
import { scheduledSaves } from '../policy/scheduled-save.ts';
import { Scheduler } from '../policy/scheduler.ts';
import { tidy } from '../images/tidy.ts';
import { undefineProcedure } from '../images/undefine.ts';
import { verifyProcedure } from '../images/verify.ts';
import { OperationEngine } from '../operations/engine.ts';
import { AuditTrail } from '../operations/audit-trail.ts';
import { EventLog } from '../operations/event-log.ts';
import { Failpoints } from '../operations/failpoints.ts';
import { catalogFile, sessionPaths, systemPaths, type Paths } from '../paths.ts';
import { QEMU_USER } from '../qemu-user.ts';
import { Mirror } from '../recovery/mirror.ts';
import { markLost, refuseOutdated } from '../recovery/outdated.ts';
import { takeService, type Service } from '../systemd/service.ts';
import { diskServerOf, findQemu } from '../qemu/build/binary.ts';
import { QemuBuilds } from '../qemu/build/builds.ts';
import { mayUseUserfaultfd, USERFAULTFD } from '../qemu/build/userfaultfd.ts';
import { ImageTool } from '../qemu/block/image-tool.ts';
import { findUser, runAs, type QemuUser } from '../qemu/process/user.ts';
import { withShortSocketPath } from '../socket-path.ts';
import { Backups } from './backups.ts';
import { BackgroundSums } from './checksumming.ts';
import { Collector } from './collecting.ts';
import { compactInBackground } from './compaction.ts';
import { Gate } from './gate.ts';
import { Health } from './health.ts';
import { endGuestsOnNotice } from './host-shutdown.ts';
import { createLogger } from './logger.ts';
import { Metrics } from './metrics.ts';
import { RemoteAccess } from './remote.ts';
import { Repeats } from './repeats.ts';
import { readSettings, type Settings } from './settings.ts';
import { buildServer, type Server } from './server.ts';

/** The daemon as a process: `stasis daemon [--system] [--shutdown-budget SECONDS]`. */
export async function main(args: readonly string[]): Promise<void> {
  const logger = createLogger(process.env['STASIS_LOG'] ?? 'info');
  try {
    const { values } = parseArgs({
      args: [...args],
      options: { system: { type: 'boolean', default: false }, 'shutdown-budget': { type: 'string' } },
    });
    const service = takeService(process.env, (message) => logger.warn({}, message));
    const stop = new AbortController();
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
    await serve({
      paths: values.system ? systemPaths() : sessionPaths(),
      shutdownBudgetSeconds: secondsOf(values['shutdown-budget']),
      service,
      logger,
      stop: stop.signal,
    });
  } catch (error) {
    const explained = StasisError.from(error);
    if (explained.code === 'busy') tellStarter('running\n');
    if (explained.code === 'internal') logger.error({ err: error }, explained.message);
    process.stderr.write(`stasis daemon: ${explained.message}\n`);
    process.exitCode = explained.exitStatus;
  }
}

interface Task {
  readonly paths: Paths;
  /** guests are ended within so long when logind announces a shutdown of the host; undefined: others see to that */
  readonly shutdownBudgetSeconds: number | undefined;
  readonly service: Service;
  readonly logger: Logger;
  readonly stop: AbortSignal;
}

async function serve({ paths, shutdownBudgetSeconds, service, logger, stop }: Task): Promise<void> {
  using starting = service.takeTime();
  process.umask(0o077); // nothing of ours is for others, unless it is said
  for (const directory of [paths.data, paths.run, paths.cache]) await ownDirectory(directory);
  await chmod(paths.cache, 0o700); // Node keeps compiled code there, and made it before us
  const settings = await readSettings(paths.config);
  await using stack = new AsyncDisposableStack();

  const file = catalogFile(paths);
  const catalog = await openCatalog(file);
  // Those of before there was somebody who may go through its directory.
  for (const each of [file, `${file}-wal`]) await chmod(each, 0o600);
  stack.defer(() => catalog.destroy());
  await reserveRoom(file);
  await refuseOutdated(catalog, paths.data);
  await markLost(catalog, paths.data);
  const failpoints = new Failpoints(process.env, (failpoint, action) =>
    logger.warn({ failpoint, action }, 'a failpoint strikes'),
  );
  const records = stack.use(new Mirror({ catalog, data: paths.data, log: logger, failpoints }));
  const user = await qemuUser(settings, paths);
  const ownership = new Ownership({ catalog, data: paths.data, user });
  await openDirectories(ownership, paths);
  if (user === undefined && process.geteuid?.() === 0)
    logger.warn({}, 'QEMU runs as root; `stasis doctor` says how it need not');
  const qemu = { ...(await findQemu()), startedBy: runAs(user) };
  // Where a rule of udev's says who may use it, that holds.
  if (!(await mayUseUserfaultfd(qemu))) await ownership.letUse(USERFAULTFD);
  const events = new EventLog(catalog);
  const imageTool = new ImageTool(qemu.imageToolPath, qemu.startedBy);
  const drivers = allDrivers(imageTool);
  const supervisor = stack.use(
    new Supervisor({ catalog, drivers, ownership, events, log: logger, runDirectory: paths.run }),
  );
  const readers = stack.use(
    new DiskReaders({ runDirectory: paths.run, binary: diskServerOf(qemu), ownership, log: logger }),
  );
  const host: Host = {
    catalog,
    paths,
    qemu,
    builds: new QemuBuilds(qemu, settings.qemu.builds),
    imageTool,
    drivers,
    supervisor,
    readers,
    ownership,
    records,
    events,
    log: logger,
    policy: settings.policy,
  };
  const audit = new AuditTrail(catalog);
  const engine = stack.use(
    new OperationEngine({
      catalog,
      events,
      audit,
      log: logger,
      failpoints,
      killGuest: (guest) => supervisor.kill(guest),
    }),
  );
  registerProcedures(engine, host);
  const metrics = stack.use(new Metrics(host, engine));
  const health = new Health(host, engine, settings.minFreeBytes);

  const bootId = await readBootId(process.env['STASIS_BOOT_ID_FILE'] ?? KERNEL_BOOT_ID);
  const boot = await recognizeBoot(catalog, events, bootId);
  await supervisor.reconnect(
    boot.isNew ? 'the host went down while it ran' : 'its QEMU process ended while no daemon watched it',
  );
  await readers.reconnect();
  const recoverRest = await engine.recover();
  await thawAll(host);
  await tidy(host);
  await lookOnce(host);
  stack.use(watchLost(host));
  await stack.use(new Collector(host, engine)).lookAtAll();
  compactInBackground(host, engine, settings);
  const { checksums, scrub } = settings;
  if (checksums !== null) stack.use(new BackgroundSums(host, engine, { checksums }));
  const scrubber =
    scrub === null ? null : stack.use(new Scrubber({ host, engine, clock: SYSTEM_CLOCK, ...scrub }));

  const backups = stack.use(new Backups(host, engine));
  const gate = new Gate(catalog, settings.access);
  const remote = new RemoteAccess(join(paths.data, 'remote'), logger);
  const { server, handlers } = await buildServer(
    {
      ...{ host, engine, audit, metrics, health, gate, remote, scrubber, backups },
      repeats: new Repeats(catalog),
      startedAt: new Date().toISOString(),
    },
    logger,
  );
  if (service.socketDescriptor === undefined) stack.defer(() => rm(paths.socket, { force: true }));
  stack.defer(() => server.close());
  stack.use(remote);
  await listen(server, paths, { service, forOthers: settings.access.length > 0 });
  await ownership.letThrough(paths.run);
  await remote.begin(handlers);
  await events.publish({ type: 'daemon', action: 'started', message: `daemon ${process.pid} started` });
  logger.info({ pid: process.pid, socket: paths.socket, qemu: qemu.versionText }, 'ready');
  tellStarter('ready\n');
  starting[Symbol.dispose]();
  service.ready();
  stack.use(service.watchdog());
  void recoverRest(); // never rejects: what fails is tried again
  if (boot.isUnsettled) {
    const args = { boot: boot.id };
    await engine.submit(restoreAllProcedure(host, engine), { kind: 'restore-all', subject: HOST, args });
  }
  const { parallel } = settings.schedules;
  stack.use(new Scheduler({ host, engine, work: scheduledSaves(host, engine), parallel })).start();
  if (shutdownBudgetSeconds !== undefined) stack.use(endGuestsOnNotice(host, engine, shutdownBudgetSeconds));

  if (!stop.aborted) await new Promise((resolve) => stop.addEventListener('abort', resolve, { once: true }));
  service.stopping();
  logger.info({}, 'stopping: guests run on');
  if (engine.isIdle) return;
  // What is under way is left as a crash would leave it, which the next start settles. Letting go of guests one by one
  // would look to it like their end.
  logger.info({}, 'operations are under way; they are finished or undone at the next start');
  process.exit();
}

/**
 * Makes a directory that only we use. One below a world-writable directory may have been put there by somebody else.
 * @throws StasisError `storage-failed` when it is another user's
 */
async function ownDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const { uid } = await stat(path);
  if (uid !== process.geteuid?.()) {
    throw new StasisError(
      'storage-failed',
      `${path} belongs to another user (uid ${uid}); remove it, or set STASIS_HOME`,
      { details: { path, uid } },
    );
  }
}

/**
 * Whom QEMU runs as: as the settings say, else, with the system's daemon, as the user that is there for that. Otherwise as we do.
 * @throws StasisError `invalid-request` for a user that isn't there, and where only root could choose one
 */
async function qemuUser({ qemu: { user: name } }: Settings, { data }: Paths): Promise<QemuUser | undefined> {
  const isRoot = process.geteuid?.() === 0;
  if (name === null) return isRoot && data === systemPaths().data ? findUser(QEMU_USER) : undefined;
  const user = await findUser(name);
  if (user === undefined)
    throw new StasisError(
      'invalid-request',
      `stasis.yaml: qemu.user: there is no user ${name}; make one: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin ${name}`,
    );
  if (user.uid === process.geteuid?.()) return undefined;
  if (isRoot) return user;
  throw new StasisError(
    'invalid-request',
    `stasis.yaml: qemu.user: only a daemon that is root can run QEMU as ${name}`,
  );
}

/** QEMU's user gets as far as to what it is given, and sees nothing on the way. */
async function openDirectories(ownership: Ownership, { data, run }: Paths): Promise<void> {
  if (ownership.user === undefined) return;
  const home = dirname(data);
  // Only STASIS_HOME has both in one directory, which is ours then.
  if (home === dirname(run)) await chmod(home, ((await stat(home)).mode & 0o7777) | 0o001);
  const below = ['guests', 'readers'].map((name) => join(run, name));
  for (const directory of below) await ownDirectory(directory);
  for (const directory of [data, run, ...below]) await ownership.letThrough(directory);
}

/** All that can be under way when a daemon dies. */
function registerProcedures(engine: OperationEngine, host: Host): void {
  engine.register(defineProcedure(host));
  engine.register(undefineProcedure(host));
  engine.register(policyProcedure());
  engine.register(labelsProcedure());
  engine.register(qemuProcedure(host));
  engine.register(bootProcedure(host));
  engine.register(shutdownProcedure(host));
  engine.register(stopProcedure(host));
  engine.register(pauseProcedure(host));
  engine.register(resumeProcedure(host));
  engine.register(resetProcedure(host));
  engine.register(saveProcedure(host));
  engine.register(restoreProcedure(host));
  engine.register(cloneProcedure(host));
  engine.register(deleteProcedure(host));
  engine.register(exportProcedure(host));
  engine.register(compactProcedure(host));
  engine.register(collectProcedure(host));
  engine.register(verifyProcedure(host));
  engine.register(saveAllProcedure(host, engine));
  engine.register(restoreAllProcedure(host, engine));
  engine.register(protectProcedure(host));
  engine.register(scheduleProcedure(host));
  engine.register(retentionProcedure(host));
  engine.register(pruneProcedure(host));
}

/** The catalog's lock makes this home ours, so a socket that is there is a dead daemon's, unless systemd listens on it for us. */
async function listen(
  server: Server,
  { run, socket }: Paths,
  { service, forOthers }: { readonly service: Service; readonly forOthers: boolean },
): Promise<void> {
  if (service.socketDescriptor !== undefined) {
    // Fastify's own way asks the socket for an address, which one that was handed over doesn't have in Node.
    server.server.listen({ fd: service.socketDescriptor });
    await once(server.server, 'listening');
    if (!forOthers) return; // its unit says who may reach it
  } else {
    await rm(socket, { force: true });
    await withShortSocketPath(socket, (short) => server.listen({ path: short }));
  }
  // Whoever comes is asked who they are: with nobody else who may come, they needn't even reach it.
  await chmod(socket, forOthers ? 0o666 : 0o600);
  await chmod(run, forOthers ? 0o711 : 0o700);
}

/** @throws StasisError `invalid-request` */
function secondsOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (seconds > 0 && Number.isFinite(seconds)) return seconds;
  throw new StasisError('invalid-request', `--shutdown-budget ${text} is no number of seconds`);
}

/** Tells whoever started us, on the descriptor they gave, that they may connect. */
function tellStarter(message: string): void {
  const descriptor = Number(process.env['STASIS_READY_FD'] ?? '');
  if (!Number.isInteger(descriptor) || descriptor < 3) return;
  // They may have gone; we serve all the same.
  write(
    descriptor,
    message,
    (error) => error && process.stderr.write(`stasis daemon: ${messageOf(error)}\n`),
  );
}
