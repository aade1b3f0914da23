/**
 * Every route × every role × a guest that they see and one that they don't, against a real daemon over HTTPS. The routes
 * come from the table, and a route without a rule can't be registered, so a new one is in here by itself.
 */
import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { after, before, describe, test } from 'node:test';
import { text } from 'node:stream/consumers';
import { includesRole } from '../../src/access/principal.ts';
import { ROLES, type Role } from '../../src/api/constants.ts';
import type { RemoteStatus } from '../../src/api/remote.ts';
import { RULES, ruleOf } from '../../src/daemon/access.ts';
import type { ErrorBody } from '../../src/errors.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';

const OWN = 'ours';
const FOREIGN = 'theirs';
const LABEL = 'web';
/** Whoever may call these changes what the rest is about: that they may is seen by what they are told for a wrong body. */
const ENDS_THE_TEST = ['DELETE /v1/remote', 'DELETE /v1/guests/:guest', 'DELETE /v1/credentials/:name'];

interface Reply {
  readonly status: number;
  readonly code: string | undefined;
  readonly body: string;
}

let lab: Lab;
let remote: RemoteStatus;
/** name of one of the catalog */
let backup: string;
const tokens = new Map<string, string>();
const operations = new Map<string, string>();

before(async () => {
  lab = await Lab.create();
  const { client } = lab;
  remote = await client.turnOnRemote({ listen: '127.0.0.1:0', names: ['localhost'] });
  for (const name of [OWN, FOREIGN]) await lab.define(name, { disks: 1 });
  backup = (await client.backUpCatalog()).name;
  await client.setLabels(OWN, [LABEL]);
  for (const guest of [OWN, FOREIGN])
    operations.set(guest, (await client.setPolicy(guest, { order: 5 }, { wait: false })).id);
  for (const role of ROLES) {
    for (const labels of [undefined, [LABEL]]) {
      const name = nameOf(role, labels !== undefined);
      const { token = '' } = await client.grantCredential({
        ...{ name, kind: 'token', role, expiresInDays: 1 },
        ...(labels === undefined ? {} : { labels }),
      });
      tokens.set(name, token);
    }
  }
});

after(() => lab[Symbol.asyncDispose]());

function nameOf(role: Role, isScoped: boolean): string {
  return `${role}-${isScoped ? 'some' : 'all'}`;
}

async function call(route: string, guest: string, token: string | undefined): Promise<Reply> {
  const [method = '', pattern = ''] = route.split(' ');
  const path = pattern
    .replace(':guest', guest)
    .replace('backups/:name', `backups/${backup}`)
    .replace(':id', operations.get(guest) ?? '')
    .replaceAll(/:\w+/g, 'nothing');
  const url = new URL(path, `https://localhost:${remote.listen?.split(':').at(-1)}`);
  const sent = request(url, {
    method,
    ca: remote.authority ?? '',
    agent: false,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(method === 'GET' || method === 'DELETE' ? {} : { 'content-type': 'application/json' }),
    },
  });
  // What nobody could mean: that it is refused as wrong, and not as forbidden, shows that they may.
  sent.end(method === 'POST' || method === 'PUT' ? '{"nonsense":true}' : undefined);
  const reply = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve).once('error', reject);
  });
  const body = await text(reply);
  const status = reply.statusCode ?? 0;
  const code = status < 400 ? undefined : fromStored<{ error: ErrorBody }>(body).error.code;
  return { status, code, body };
}

function expected(route: string, role: Role, isScoped: boolean, guest: string): string {
  const rule = RULES[route];
  assert.ok(rule !== undefined);
  if (!includesRole(role, rule.role)) return 'forbidden';
  if (!isScoped) return 'let in';
  if (rule.about === 'host') return 'forbidden';
  if (guest === FOREIGN && rule.about === 'guest') return 'guest-not-found';
  if (guest === FOREIGN && rule.about === 'operation') return 'operation-not-found';
  return 'let in';
}

describe('who may call what', { concurrency: 1 }, () => {
  for (const role of ROLES) {
    for (const isScoped of [true, false]) {
      test(`${role}, ${isScoped ? 'for some guests' : 'for all guests'}`, async () => {
        for (const route of Object.keys(RULES)) {
          for (const guest of [OWN, FOREIGN]) {
            if (guest === FOREIGN && !/:(guest|id)/.test(route)) continue; // the same request again
            const wanted = expected(route, role, isScoped, guest);
            if (wanted === 'let in' && ENDS_THE_TEST.includes(route)) continue;
            const { status, code, body } = await call(route, guest, tokens.get(nameOf(role, isScoped)));
            const told = `${route} of ${guest}: ${status} ${body.slice(0, 200)}`;
            if (wanted !== 'let in') assert.equal(code, wanted, told);
            else
              assert.ok(
                !['unauthorized', 'forbidden', 'not-found', 'guest-not-found'].includes(code ?? ''),
                told,
              );
            if (isScoped)
              assert.ok(guest === FOREIGN || !body.includes(FOREIGN), `${told} names what they don't see`);
          }
        }
      });
    }
  }

  test('nobody without a credential, with a wrong one, or one that was revoked or is for another daemon', async () => {
    await lab.client.revokeCredential('viewer-all');
    const wrong = [
      undefined,
      'nonsense',
      `stasis_${'0'.repeat(16)}_${'A'.repeat(43)}`,
      tokens.get('viewer-all'),
    ];
    for (const [index, route] of Object.keys(RULES).entries()) {
      const { code } = await call(route, OWN, wrong[index % wrong.length]);
      assert.ok(code === 'unauthorized' || code === 'too-many-requests', `${route}: ${code}`);
    }
    // Whoever guesses is not listened to for a while; whoever has a good one is.
    assert.equal((await call('GET /v1/guests', OWN, 'nonsense')).code, 'too-many-requests');
    assert.equal((await call('GET /v1/guests', OWN, tokens.get('viewer-some'))).status, 200);
  });

  test('each refusal and each call is in the audit trail, with who it was and no secret', async () => {
    const trail = await lab.client.listAudit({ limit: 1000 });
    const refused = trail.find(
      ({ action, outcome }) => action === 'POST /v1/host/save-all' && outcome === 'forbidden',
    );
    assert.match(refused?.caller?.credential ?? '', /^(viewer|operator|admin)-/);
    const whole = JSON.stringify(trail) + (await lab.log());
    for (const token of tokens.values()) assert.ok(!whole.includes(token.slice(-43)));
  });

  test('a route that nobody thought about is none', () => {
    assert.throws(() => ruleOf('POST', '/v1/new'), /who may call POST \/v1\/new/);
  });
});
