/** Before anything of a request's body is read: is it from somebody who may call this, and about a guest that they see? */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { findGuest, guestNotFound, type GuestRecord } from '../catalog/guests.ts';
import { findOperation, operationNotFound } from '../catalog/operations.ts';
import { StasisError } from '../errors.ts';
import { ruleOf, type Rule } from './access.ts';
import type { ViewContext } from './views.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    rule?: Rule;
  }
}

/** From here on no route can be registered that `access.ts` doesn't know. */
export function admitByRules(server: FastifyInstance, context: ViewContext): void {
  server.addHook('onRoute', (route) => {
    const methods = typeof route.method === 'string' ? [route.method] : route.method;
    const [rule] = methods.map((method) => ruleOf(method, route.url));
    route.config = { ...route.config, ...(rule === undefined ? {} : { rule }) };
  });
  server.addHook('onRequest', async (request) => {
    const { rule } = request.routeOptions.config;
    // A route that there isn't is told to nobody whom nothing is told.
    await context.gate.admit(request.raw, rule?.role ?? 'viewer');
    if (rule !== undefined) await requireSight(context, request, rule);
  });
}

/** What isn't seen is told of as what isn't there is. */
async function requireSight(context: ViewContext, request: FastifyRequest, { about }: Rule): Promise<void> {
  const sight = await context.gate.sightOf(request.raw);
  if (sight.isWhole) return;
  const { guest = '', id = '' } = paramsOf(request);
  if (about === 'host')
    throw new StasisError('forbidden', 'this concerns all guests, and this credential is for some of them');
  // What took the guest out of sight may be this very request, sent before.
  if (about === 'guest' && !(await sight.ofName(guest)) && !(await context.repeats.isRepeat(request)))
    throw guestNotFound(guest);
  if (about === 'operation') {
    const operation = await findOperation(context.host.catalog, id);
    if (operation !== undefined && !(await sight.ofOperation(operation))) throw operationNotFound(id);
  }
}

/** A guest's channel is asked for: the same for what is no route. @returns the guest. @throws StasisError */
export async function admitChannel(
  context: ViewContext,
  request: FastifyRequest['raw'],
  { role }: Rule,
  guest: string,
): Promise<GuestRecord> {
  await context.gate.admit(request, role);
  const sight = await context.gate.sightOf(request);
  const record = await findGuest(context.host.catalog, guest);
  if (record === undefined || !sight.of(record)) throw guestNotFound(guest);
  return record;
}

function paramsOf({ params }: FastifyRequest): { guest?: string; id?: string } {
  return typeof params === 'object' && params !== null ? params : {};
}
