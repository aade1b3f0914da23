/**
 * Who may call which route: the whole table. A route that isn't in it can't be registered, so that nobody forgets to think
 * about it; a test goes through all of it with every role.
 */
import type { Role } from '../api/constants.ts';

/**
 * What a route is about, for those who may only see some guests:
 * `guest`: the one in its address, and others don't exist · `guests`: it leaves out what they don't see ·
 * `operation`: what is done to a guest that they see, or what they began · `host`: all guests, so nothing for them ·
 * `nothing`: no guest
 */
export type About = 'guest' | 'guests' | 'operation' | 'host' | 'nothing';

export interface Rule {
  readonly role: Role;
  readonly about: About;
}

export const RULES: Readonly<Record<string, Rule>> = {
  'GET /v1/guests': { role: 'viewer', about: 'guests' },
  'GET /v1/guests/:guest': { role: 'viewer', about: 'guest' },
  'GET /v1/guests/:guest/overview': { role: 'viewer', about: 'guest' },
  // A definition names files of the host and may hold arguments of QEMU: whoever writes one may do what the daemon may.
  'POST /v1/guests': { role: 'admin', about: 'host' },
  'DELETE /v1/guests/:guest': { role: 'admin', about: 'guest' },
  'PUT /v1/guests/:guest/policy': { role: 'operator', about: 'guest' },
  'PUT /v1/guests/:guest/labels': { role: 'admin', about: 'guest' },
  'PUT /v1/guests/:guest/qemu': { role: 'admin', about: 'guest' },
  'POST /v1/guests/:guest/start': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/shutdown': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/stop': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/pause': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/resume': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/reset': { role: 'operator', about: 'guest' },

  'GET /v1/images': { role: 'viewer', about: 'guests' },
  'GET /v1/guests/:guest/images': { role: 'viewer', about: 'guest' },
  'GET /v1/guests/:guest/images/:image': { role: 'viewer', about: 'guest' },
  // A screen may show anything: it is for those who may look at the guest's own.
  'GET /v1/guests/:guest/images/:image/screen': { role: 'operator', about: 'guest' },
  'GET /v1/guests/:guest/prediction': { role: 'viewer', about: 'guest' },
  'POST /v1/guests/:guest/images': { role: 'operator', about: 'guest' },
  'DELETE /v1/guests/:guest/images/:image': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/images/:image/verify': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/restore': { role: 'operator', about: 'guest' },

  'POST /v1/guests/:guest/images/:image/protect': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/images/:image/unprotect': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/schedules': { role: 'operator', about: 'guest' },
  'PUT /v1/guests/:guest/schedules/:schedule': { role: 'operator', about: 'guest' },
  'DELETE /v1/guests/:guest/schedules/:schedule': { role: 'operator', about: 'guest' },
  'GET /v1/retention': { role: 'viewer', about: 'guests' },
  'GET /v1/guests/:guest/retention': { role: 'viewer', about: 'guest' },
  'PUT /v1/guests/:guest/retention': { role: 'operator', about: 'guest' },
  'POST /v1/guests/:guest/prune': { role: 'operator', about: 'guest' },

  'GET /v1/guests/:guest/disks': { role: 'viewer', about: 'guest' },
  'POST /v1/guests/:guest/images/:image/export': { role: 'operator', about: 'guest' },
  'POST /v1/exports/:export/claim': { role: 'operator', about: 'host' },
  'POST /v1/guests/:guest/compact': { role: 'operator', about: 'guest' },

  'GET /v1/operations': { role: 'viewer', about: 'guests' },
  'GET /v1/operations/:id': { role: 'viewer', about: 'operation' },
  'DELETE /v1/operations/:id': { role: 'operator', about: 'operation' },
  'GET /v1/events': { role: 'viewer', about: 'guests' },
  'GET /v1/overview': { role: 'viewer', about: 'guests' },
  'GET /v1/events/overview': { role: 'viewer', about: 'guests' },

  'GET /v1/host': { role: 'viewer', about: 'host' },
  'GET /v1/host/overview': { role: 'viewer', about: 'host' },
  'POST /v1/host/save-all': { role: 'admin', about: 'host' },
  // It may execute a program that the caller names.
  'POST /v1/host/check': { role: 'admin', about: 'host' },
  'GET /v1/host/save-all/plan': { role: 'viewer', about: 'host' },
  'POST /v1/host/restore-all': { role: 'admin', about: 'host' },
  'GET /v1/doctor': { role: 'viewer', about: 'host' },
  'GET /v1/openapi.json': { role: 'viewer', about: 'nothing' },

  // Who did what may name guests that not everybody sees.
  'GET /v1/audit': { role: 'admin', about: 'host' },
  'GET /v1/audit/verification': { role: 'admin', about: 'host' },
  'GET /healthz': { role: 'viewer', about: 'nothing' },
  'GET /readyz': { role: 'viewer', about: 'host' },
  'GET /metrics': { role: 'viewer', about: 'host' },

  // A backup has what all guests' owners did, and the hashes of credentials.
  'POST /v1/catalog/backups': { role: 'admin', about: 'host' },
  'GET /v1/catalog/backups/:name': { role: 'admin', about: 'host' },

  // Whoever is let in may have a session in place of their token.
  'POST /v1/session': { role: 'viewer', about: 'nothing' },
  'DELETE /v1/session': { role: 'viewer', about: 'nothing' },

  'GET /v1/remote': { role: 'admin', about: 'host' },
  'PUT /v1/remote': { role: 'admin', about: 'host' },
  'DELETE /v1/remote': { role: 'admin', about: 'host' },
  'GET /v1/credentials': { role: 'admin', about: 'host' },
  'POST /v1/credentials': { role: 'admin', about: 'host' },
  'DELETE /v1/credentials/:name': { role: 'admin', about: 'host' },
};

/** Channels, which are no routes: whoever has one can type. */
export const CHANNEL_RULE: Rule = { role: 'operator', about: 'guest' };

/** @throws Error for a route without a rule, when it is registered */
export function ruleOf(method: string, url: string): Rule {
  const rule = RULES[`${method === 'HEAD' ? 'GET' : method} ${url}`];
  if (rule === undefined) throw new Error(`who may call ${method} ${url}? access.ts has no rule for it`);
  return rule;
}
