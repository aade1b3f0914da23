/** The host: what the daemon is and has, what the host can do, and the API's own description. */
import { statfs } from 'node:fs/promises';
import Type from 'typebox';
import type { Doctor, HostStatus, Outcome, SaveAllPlan } from '../api/schemas.ts';
import { Ref, SaveAllRequest } from '../api/schemas.ts';
import { countGuests } from '../catalog/guests.ts';
import { lastBoot, lastShutdown, type HostBootRecord } from '../catalog/host-boots.ts';
import { countUnwritten } from '../catalog/records.ts';
import { lastScrub } from '../catalog/scrubs.ts';
import { storedBytes } from '../catalog/statistics.ts';
import { restoreAllProcedure } from '../policy/restore-all.ts';
import { HOST, makeWay, saveAllProcedure } from '../policy/save-all.ts';
import { describePlan } from '../policy/survey.ts';
import { fromStored } from '../stored.ts';
import { StasisError } from '../errors.ts';
import { VERSION } from '../version.ts';
import { examine } from './doctor/doctor.ts';
import { submit } from './respond.ts';
import { Accepted, Failure, type Routes } from './routes-guests.ts';
import type { DaemonContext } from './views.ts';

/** Numbers in a query string are text. */
const PlanQuery = Type.Object(
  { budgetSeconds: Type.Optional(Type.String({ pattern: '^[0-9]+(\\.[0-9]+)?$' })) },
  { additionalProperties: false },
);

export function hostRoutes(routes: Routes, context: DaemonContext): void {
  const { host } = context;

  routes.get(
    '/v1/host',
    {
      schema: {
        summary: 'The daemon and what it keeps',
        response: { 200: Ref<HostStatus>('HostStatus'), default: Failure },
      },
    },
    () => hostStatus(context),
  );

  routes.post(
    '/v1/host/save-all',
    {
      schema: {
        summary: "End all guests as their policies say, within a budget, as for the host's shutdown",
        body: Type.Optional(SaveAllRequest),
        response: Accepted,
      },
    },
    async (request, reply) => {
      await makeWay(context.engine);
      const args = request.body ?? {};
      return submit(context, reply, {
        kind: 'save-all',
        procedure: saveAllProcedure(host, context.engine),
        subject: HOST,
        args,
      });
    },
  );

  routes.get(
    '/v1/host/save-all/plan',
    {
      schema: {
        summary: 'What that would do now, and how long it would take',
        querystring: PlanQuery,
        response: { 200: Ref<SaveAllPlan>('SaveAllPlan'), default: Failure },
      },
    },
    (request) => {
      const { budgetSeconds } = request.query;
      return describePlan(host, budgetSeconds === undefined ? undefined : Number(budgetSeconds));
    },
  );

  routes.post(
    '/v1/host/restore-all',
    {
      schema: {
        summary: "Start all guests as their policies say, as for the host's boot",
        response: Accepted,
      },
    },
    (_request, reply) =>
      submit(context, reply, {
        kind: 'restore-all',
        procedure: restoreAllProcedure(host, context.engine),
        subject: HOST,
        args: { boot: null },
      }),
  );

  routes.get(
    '/v1/doctor',
    {
      schema: {
        summary: "What this host can do, what it can't, and how to enable it",
        response: { 200: Ref<Doctor>('Doctor'), default: Failure },
      },
    },
    async () => ({
      checks: await examine(context),
    }),
  );

  routes.get('/v1/openapi.json', { schema: { hide: true } }, () => routes.swagger());
}

export async function hostStatus(context: DaemonContext): Promise<HostStatus> {
  const { host } = context;
  const { images, memoryBytes, layerBytes } = await storedBytes(host.catalog);
  const { bavail, bsize } = await statfs(host.paths.data);
  return {
    pid: process.pid,
    version: VERSION,
    startedAt: context.startedAt,
    home: host.paths.data,
    qemu: { binary: host.qemu.path, version: host.qemu.versionText },
    guests: { defined: await countGuests(host.catalog), running: host.supervisor.liveGuests().length },
    images,
    storedBytes: memoryBytes + layerBytes,
    freeBytes: bavail * bsize,
    residentBytes: process.memoryUsage.rss(),
    unwrittenRecords: await countUnwritten(host.catalog),
    readiness: await context.health.readiness(),
    ...(await bootAndShutdown(context)),
    scrub: await scrubView(context),
  };
}

async function bootAndShutdown({ host }: DaemonContext): Promise<Pick<HostStatus, 'boot' | 'shutdown'>> {
  const boot = await lastBoot(host.catalog);
  const shutdown = await lastShutdown(host.catalog);
  if (boot === undefined) throw new StasisError('internal', 'the catalog knows of no boot of the host');
  return {
    boot: {
      id: boot.bootId,
      seenAt: boot.seenAt,
      after: boot.after,
      ran: fromStored<string[]>(boot.ran),
      settledAt: boot.settledAt,
      guests: fromStored<Outcome[]>(boot.outcomes),
    },
    shutdown: shutdown === undefined ? null : shutdownView(shutdown),
  };
}

async function scrubView({ host, scrubber }: DaemonContext): Promise<HostStatus['scrub']> {
  const last = await lastScrub(host.catalog);
  return {
    schedule: scrubber?.schedule ?? null,
    nextAt: scrubber?.nextAt ?? null,
    last:
      last === undefined
        ? null
        : {
            startedAt: last.startedAt,
            finishedAt: last.finishedAt,
            verified: last.verified,
            damaged: fromStored<string[]>(last.damaged),
            skipped: fromStored<string[]>(last.skipped),
          },
  };
}

function shutdownView({ shutdownAt, shutdownClean, shutdownOutcomes }: HostBootRecord) {
  return {
    at: shutdownAt ?? '',
    clean: shutdownClean === 1,
    guests: fromStored<Outcome[]>(shutdownOutcomes),
  };
}
