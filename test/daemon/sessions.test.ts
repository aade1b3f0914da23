/** Sessions of the page over HTTPS, what another site's page can do with them, and what ends with a credential. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { connect, createServer, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import type { Duplex } from 'node:stream';
import type { NewCredential } from '../../src/api/remote.ts';
import { StasisClient } from '../../src/client/stasis-client.ts';
import { Connections } from '../../src/daemon/connections.ts';
import { Sessions } from '../../src/page/sessions.ts';
import { Lab } from '../support/lab.ts';

const HOUR_MS = 3_600_000;

test('a session ends without use, after its time, with its owner, and when others take its place', () => {
  let nowMs = 1_000;
  const rules = { name: 'c', attributes: ['Path=/'], idleMs: HOUR_MS, longestMs: 3 * HOUR_MS, most: 2 };
  const sessions = new Sessions<string>(rules, () => nowMs);
  const begin = (owner: string) => sessions.begin(owner).cookie.split(';')[0];
  const owners = (...cookies: (string | undefined)[]) => cookies.map((one) => sessions.find(one)?.owner);

  assert.match(sessions.begin('z').cookie, /^c=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict$/);
  const used = begin('a');
  const unused = begin('b');
  for (const _ of [1, 2, 3]) {
    nowMs += HOUR_MS - 1;
    assert.deepEqual(owners(`other=1; ${used}`, 'c=', 'c', undefined), [
      'a',
      undefined,
      undefined,
      undefined,
    ]);
  }
  assert.deepEqual(owners(unused), [undefined]);
  nowMs += 4;
  assert.deepEqual(owners(used), [undefined], 'used all the time, and over all the same');

  const { session } = sessions.begin('c');
  nowMs += HOUR_MS - 1;
  session.use(); // somebody types on a console
  assert.equal(session.endsAtMs(), nowMs + HOUR_MS);

  const [first, second, third] = [begin('a'), begin('a'), begin('a')];
  assert.deepEqual(owners(first, second, third), [undefined, 'a', 'a']);
  assert.match(sessions.end(second), /^c=; .*; Max-Age=0$/);
  assert.deepEqual(owners(second, third), [undefined, 'a']);
  const other = begin('b');
  sessions.endAllOf('a');
  assert.deepEqual(owners(third, other), [undefined, 'b']);
});

test('a connection ends when what it is let in by does, and not before', async () => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  const pair = async () => {
    const client = connect(address.port, '127.0.0.1');
    const accepted = await new Promise<Socket>((resolve) => server.once('connection', resolve));
    return { client, accepted };
  };
  const connections = new Connections();
  const [expires, goesOn, revoked, except] = [await pair(), await pair(), await pair(), await pair()];
  const beganMs = Date.now();
  let endsAtMs = beganMs + 30;
  connections.use(expires.accepted, () => endsAtMs);
  endsAtMs = beganMs + 120; // it was used: the timer that is set already finds that
  connections.use(goesOn.accepted, () => Number.MAX_SAFE_INTEGER);
  let isGood = true;
  for (const { accepted } of [revoked, except]) connections.use(accepted, () => (isGood ? Infinity : 0));
  await once(expires.client, 'close');
  assert.ok(Date.now() >= endsAtMs - 1);
  isGood = false;
  connections.endThoseThatEnded(except.accepted);
  await once(revoked.client, 'close');
  assert.deepEqual([goesOn.accepted.destroyed, except.accepted.destroyed], [false, false]);
  for (const { client } of [goesOn, except]) client.destroy();
  server.close();
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

describe('over HTTPS', () => {
  let lab: Lab;
  let origin: string;
  let authority: string;
  before(async () => {
    lab = await Lab.create();
    const status = await lab.client.turnOnRemote({ listen: '127.0.0.1:0', names: ['localhost'] });
    origin = `https://localhost:${status.listen?.split(':').at(-1)}`;
    authority = status.authority ?? '';
    await lab.define('web1', { system: 'bare', disks: 1, extra: { serial: true } });
    await lab.client.start('web1');
  });
  after(() => lab[Symbol.asyncDispose]());

  const grant = (name: string, kind: 'token' | 'certificate' = 'token') =>
    lab.client.grantCredential({ name, kind, role: 'admin', expiresInDays: 1 });

  async function ask(
    method: string,
    path: string,
    headers: Record<string, string>,
    { certificate, key }: Partial<NewCredential> = {},
  ): Promise<Answer> {
    const sent = request(new URL(path, origin), {
      ...{ method, headers, ca: authority, agent: false, servername: 'localhost' },
      ...(certificate === undefined ? {} : { cert: certificate, key }),
    });
    sent.end();
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      sent.once('response', resolve).once('error', reject);
      sent.once('upgrade', (switched: IncomingMessage, stream: Duplex) => {
        stream.destroy();
        resolve(switched);
      });
    });
    const status = response.statusCode ?? 0;
    return { status, headers: response.headers, body: status === 101 ? '' : await text(response) };
  }

  async function logIn(token = ''): Promise<string> {
    const { status, headers } = await ask('POST', '/v1/session', {
      origin,
      authorization: `Bearer ${token}`,
    });
    assert.equal(status, 200);
    return headers['set-cookie']?.[0]?.split(';')[0] ?? '';
  }

  test("another site's page can do nothing with a session, and neither can a request that is no page's", async () => {
    const { token } = await grant('anna');
    const cookie = await logIn(token);
    const own = { cookie, origin, 'stasis-page': '1' };
    const upgrade = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' };
    const channel = { ...upgrade, 'sec-websocket-key': 'c3Rhc2lzIGlzIG5vdCBhIA==' };
    const pause = '/v1/guests/web1/pause';
    const console = '/v1/guests/web1/console';
    const refused: [string, string, string, Record<string, string>][] = [
      ['another site', 'POST', pause, { ...own, origin: 'https://evil.example' }],
      ['another port of this host', 'POST', pause, { ...own, origin: 'https://localhost:1' }],
      ['by HTTP', 'POST', pause, { ...own, origin: origin.replace('https', 'http') }],
      ['a sandboxed page', 'POST', pause, { ...own, origin: 'null' }],
      ['a form', 'POST', pause, { cookie, origin }],
      ['no origin', 'POST', pause, { cookie, 'stasis-page': '1' }],
      ['a picture of another site', 'GET', '/v1/guests', { cookie, 'sec-fetch-site': 'cross-site' }],
      ['a page of another port', 'GET', '/v1/guests', { cookie, 'sec-fetch-site': 'same-site' }],
      ['a WebSocket of another site', 'GET', console, { ...channel, cookie, origin: 'https://evil.example' }],
      ['a WebSocket of nobody', 'GET', console, { ...channel, cookie }],
      ['a made-up cookie', 'GET', '/v1/guests', { cookie: `${cookie}x` }],
    ];
    for (const [who, method, path, headers] of refused) {
      const { status, body } = await ask(method, path, headers);
      assert.equal(status, 401, `${who}: ${body}`);
    }
    assert.equal((await lab.client.getGuest('web1')).state, 'running', 'nobody paused it');
    assert.equal((await ask('GET', console, { ...channel, cookie, origin })).status, 101);
    assert.equal((await ask('GET', '/v1/guests', { cookie })).status, 200);
    assert.equal(
      (await ask('POST', '/v1/guests/none/pause', own)).status,
      404,
      'the page itself gets through',
    );

    const trail = await lab.client.listAudit({ limit: 1000 });
    const tried = trail.filter(
      ({ action, outcome }) => action.endsWith('/pause') && outcome === 'unauthorized',
    );
    assert.deepEqual(
      tried.map(({ caller }) => caller?.credential ?? null),
      [null, null, null, null, 'anna', 'anna'],
      'what came by her session, though not from our page, is told as that',
    );
  });

  test('nor with the certificate of a browser; with it our page needs no login', async () => {
    const identity = await grant('cora', 'certificate');
    const own = { origin, 'stasis-page': '1' };
    const foreign = { origin: 'https://evil.example' };
    assert.equal((await ask('POST', '/v1/guests/web1/pause', foreign, identity)).status, 401);
    const { body } = await ask('GET', '/v1/overview', { 'sec-fetch-site': 'same-origin' }, identity);
    const { name, role, by } = JSON.parse(body).principal;
    assert.deepEqual([name, role, by], ['cora', 'admin', 'certificate']);
    assert.equal((await ask('POST', '/v1/session', own, identity)).status, 409);
    // A login says more than what the browser sends by itself.
    const { token = '' } = await grant('carl');
    const login = await ask('POST', '/v1/session', { ...own, authorization: `Bearer ${token}` }, identity);
    assert.equal(JSON.parse(login.body).name, 'carl');
    const wrong = await ask('POST', '/v1/session', { ...own, authorization: `Bearer ${token}x` }, identity);
    assert.equal(wrong.status, 401);
  });

  test('the files are for anybody, under headers that let no other script in; all else is for those let in', async () => {
    const page = await ask('GET', '/', { 'accept-encoding': 'gzip' });
    assert.equal(page.status, 200);
    assert.equal(page.headers['content-encoding'], 'gzip');
    for (const path of ['/', '/v1/guests']) {
      const { headers } = await ask('GET', path, {});
      const rules = String(headers['content-security-policy']).split('; ');
      for (const rule of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"])
        assert.ok(rules.includes(rule), `${path}: ${rule}`);
      assert.ok(rules.includes(`connect-src 'self' ${origin.replace('https', 'wss')}`));
      assert.equal(headers['x-content-type-options'], 'nosniff');
    }
    assert.equal((await ask('GET', '/v1/overview', {})).status, 401);
    assert.equal((await ask('GET', '/', { host: "localhost; script-src 'unsafe-inline'" })).status, 400);
    for (const path of ['/../package.json', '/assets/', '/index.html', '/metrics'])
      assert.equal((await ask('GET', path, {})).status, 401, path);

    const listen = `127.0.0.1:${new URL(origin).port}`;
    await lab.client.turnOnRemote({ listen, names: ['localhost'], page: false });
    assert.equal((await ask('GET', '/', {})).status, 401, 'switched off');
    await lab.client.turnOnRemote({ listen, names: ['localhost'] });
  });

  test('what is open ends with the credential at once: by token, by certificate and by session', async () => {
    const token = await grant('tom');
    const certificate = await grant('zoe', 'certificate');
    const cookie = await logIn((await grant('sue')).token);
    const clientOf = (by: object) =>
      new StasisClient({ connect: { kind: 'https', url: new URL(origin), authority, ...by } });
    const ends: Promise<unknown>[] = [];
    const open = async (client: StasisClient) => {
      const line = await client.openConsole('web1');
      ends.push(once(line, 'close'));
      line.resume();
      const events = client.watch(0)[Symbol.asyncIterator]();
      await events.next();
      ends.push(assert.rejects(drained(events), { code: 'daemon-unreachable' }));
    };
    const [tom, zoe] = [clientOf({ token: token.token }), clientOf({ identity: certificate })];
    await open(tom);
    await open(zoe);
    const stream = request(new URL('/v1/events', origin), {
      ...{ ca: authority, agent: false },
      headers: { cookie, accept: 'text/event-stream' },
    }).end();
    const response = await new Promise<IncomingMessage>((resolve) => stream.once('response', resolve));
    ends.push(assert.rejects(text(response), { code: 'ECONNRESET' }));

    // A guest that is worked at goes on, whoever began that.
    await tom.revokeCredential('tom'); // also by itself: it is still answered
    await lab.client.revokeCredential('zoe');
    await lab.client.revokeCredential('sue');
    await Promise.all(ends);
    await assert.rejects(tom.listGuests(), { code: 'unauthorized' });
    await assert.rejects(zoe.listGuests(), { code: 'unauthorized' });
    assert.equal((await ask('GET', '/v1/guests', { cookie })).status, 401);
  });
});

async function drained(events: AsyncIterator<unknown>): Promise<void> {
  while ((await events.next()).done !== true);
}
