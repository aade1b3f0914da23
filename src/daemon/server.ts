/** The HTTP server: schemas, one error shape, OpenAPI, and the routes. */
import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { IncomingMessage, ServerResponse } from 'node:http';
import Fastify, { LogController, type FastifyBaseLogger, type FastifyError } from 'fastify';
import {
  AuditEntry,
  AuditVerdict,
  Readiness,
  ErrorBodySchema,
  Outcome,
  ErrorReply,
  DiskExport,
  DiskTree,
  Doctor,
  Event,
  EventsOverview,
  Guest,
  GuestOverview,
  HostCheck,
  HostOverview,
  HostStatus,
  Image,
  Operation,
  Overview,
  PauseParts,
  Policy,
  SaveAllPlan,
  SavePrediction,
  CatalogBackup,
} from '../api/schemas.ts';
import { Retention, RetentionPlan, Schedule } from '../api/schedules.ts';
import { StasisError, errnoOf } from '../errors.ts';
import { newId } from '../ids.ts';
import { inLogScope } from '../log.ts';
import { stillness } from '../stillness.ts';
import { VERSION } from '../version.ts';
import { Credential, NewCredential, Principal, RemoteStatus } from '../api/remote.ts';
import { admitByRules } from './admission.ts';
import { answerRepeats } from './answer-repeats.ts';
import type { DaemonContext } from './views.ts';
import { auditRoutes } from './routes-audit.ts';
import { recordCall } from './audit-calls.ts';
import { catalogRoutes } from './routes-catalog.ts';
import { checkRoutes } from './routes-check.ts';
import { lateValidators } from './late-validators.ts';
import { diskRoutes } from './routes-disks.ts';
import { eventRoutes } from './routes-events.ts';
import { guestRoutes } from './routes-guests.ts';
import { healthRoutes } from './routes-health.ts';
import { hostRoutes } from './routes-host.ts';
import { imageRoutes } from './routes-images.ts';
import { operationRoutes } from './routes-operations.ts';
import { overviewRoutes } from './routes-overview.ts';
import { retentionRoutes } from './routes-retention.ts';
import { scheduleRoutes } from './routes-schedules.ts';
import { remoteRoutes } from './routes-remote.ts';
import { verifyRoutes } from './routes-verify.ts';
import { openChannels } from './upgrades.ts';

/** What others refer to. */
const SCHEMAS = [
  Policy,
  Schedule,
  Retention,
  RetentionPlan,
  Guest,
  PauseParts,
  Image,
  SavePrediction,
  SaveAllPlan,
  DiskTree,
  DiskExport,
  ErrorBodySchema,
  Outcome,
  ErrorReply,
  Operation,
  Event,
  AuditEntry,
  AuditVerdict,
  Readiness,
  Principal,
  Overview,
  GuestOverview,
  HostCheck,
  HostStatus,
  Doctor,
  CatalogBackup,
  HostOverview,
  EventsOverview,
  RemoteStatus,
  Credential,
  NewCredential,
];

/** A definition is the largest thing a client sends. */
const BODY_LIMIT_BYTES = 1024 ** 2;

export type Server = Awaited<ReturnType<typeof buildServer>>['server'];

export async function buildServer(context: DaemonContext, logger: FastifyBaseLogger) {
  const server = Fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_LIMIT_BYTES,
    forceCloseConnections: true,
    genReqId: newId,
  }).withTypeProvider<TypeBoxTypeProvider>();

  server.setValidatorCompiler(lateValidators(SCHEMAS));
  // The types hold what is sent to the schemas; V8's own serializer is several times faster than one made from them.
  server.setSerializerCompiler(() => (data) => JSON.stringify(data));

  server.setErrorHandler(async (error: FastifyError | Error, request, reply) => {
    const explained = explain(error);
    if (explained.code === 'internal') request.log.error({ err: error, url: request.url }, 'internal error');
    context.metrics.countRefusal(request.method, explained.code);
    await recordCall(context, request, { outcome: explained.code, message: explained.message });
    return reply.status(explained.httpStatus).send({ error: explained.toJSON() });
  });
  server.addHook('onRequest', () => stillness.turn());
  // Whatever is logged for a request, by whoever, tells its id; so does the answer.
  server.addHook('onRequest', (request, reply, done) => {
    void reply.header('request-id', request.id);
    const answered = Promise.withResolvers<void>();
    reply.raw.once('close', () => answered.resolve());
    void inLogScope({ request: request.id }, () => {
      done();
      return answered.promise;
    });
  });
  admitByRules(server, context);
  answerRepeats(server, context);
  server.addHook('onResponse', (request, reply) =>
    recordCall(context, request, { outcome: reply.statusCode < 400 ? 'done' : String(reply.statusCode) }),
  );
  server.setNotFoundHandler((request, reply) => {
    const error = new StasisError(
      'not-found',
      `there is no ${request.method} ${request.url}; the API is described at /v1/openapi.json`,
    );
    return reply.status(404).send({ error: error.toJSON() });
  });

  for (const schema of SCHEMAS) server.addSchema(schema);
  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Stasis',
        version: VERSION,
        description: 'Managed, named save images for QEMU/KVM guests',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
    },
    refResolver: {
      buildLocalReference: (json, _uri, _fragment, index) =>
        typeof json['$id'] === 'string' ? json['$id'] : `schema-${index}`,
    },
  });
  await server.register((routes, _options, done) => {
    guestRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    imageRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    diskRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    verifyRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    operationRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    eventRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    scheduleRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    retentionRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    overviewRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    auditRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    checkRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    healthRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    hostRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    catalogRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    remoteRoutes(routes.withTypeProvider<TypeBoxTypeProvider>(), context);
    done();
  });
  const channels = openChannels(context);
  server.server.on('upgrade', channels.upgrade);
  server.addHook('preClose', (done) => {
    channels.end();
    server.server.closeAllConnections(); // Fastify itself does so only where it has listened itself
    done();
  });
  await server.ready();
  return {
    server,
    /** for those who come another way than by the server's own socket */
    handlers: {
      request: (request: IncomingMessage, response: ServerResponse) => server.routing(request, response),
      upgrade: channels.upgrade,
    },
  };
}

/** What Fastify finds wrong with a request is the client's mistake, told in the one error model. */
function explain(error: FastifyError | Error): StasisError {
  if ('validation' in error && error.validation !== undefined) {
    const [problem] = error.validation;
    const unknown = problem?.params?.['additionalProperty'];
    return new StasisError(
      'invalid-request',
      `the request is not valid: ${error.message}${typeof unknown === 'string' ? ` ("${unknown}")` : ''}`,
    );
  }
  if (
    'statusCode' in error &&
    error.statusCode !== undefined &&
    error.statusCode < 500 &&
    errnoOf(error)?.startsWith('FST_')
  ) {
    return new StasisError('invalid-request', error.message);
  }
  return StasisError.from(error);
}
