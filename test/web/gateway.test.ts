/** Who gets through the gateway: nobody but the page that the link opened. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Gateway } from '../../src/gateway/gateway.ts';
import { Lab } from '../support/lab.ts';

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

async function ask(
  url: URL,
  method: string,
  headers: Record<string, string>,
  body?: string,
): Promise<Answer> {
  const sent = request(url, { method, headers });
  sent.end(body);
  const [response] = await once(sent, 'response');
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

describe('the gateway', () => {
  let lab: Lab;
  let gateway: Gateway;
  before(async () => {
    lab = await Lab.create();
    gateway = await Gateway.open(lab.paths.socket, 0);
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await lab[Symbol.asyncDispose]();
  });

  async function login(): Promise<{ base: URL; cookie: string; setCookie: string; secret: string }> {
    const link = new URL(gateway.link());
    const secret = link.hash.slice('#secret='.length);
    const base = new URL(link.pathname, link);
    const own = { origin: base.origin, 'stasis-page': '1' };
    const { status, headers } = await ask(new URL('session', base), 'POST', own, secret);
    assert.equal(status, 204);
    const setCookie = headers['set-cookie']?.[0] ?? '';
    return { base, secret, setCookie, cookie: setCookie.split(';')[0] ?? '' };
  }

  test('a link is good for one session, whose cookie no script reads and no other site sends', async () => {
    const { base, secret, setCookie, cookie } = await login();
    assert.match(setCookie, /; HttpOnly; SameSite=Strict$/);
    assert.ok(setCookie.includes(`Path=${base.pathname};`), 'and which is for this path alone');
    const again = await ask(
      new URL('session', base),
      'POST',
      { origin: base.origin, 'stasis-page': '1' },
      secret,
    );
    assert.equal(again.status, 401);
    assert.equal(again.headers['set-cookie'], undefined);
    const guests = await ask(new URL('v1/guests', base), 'GET', { cookie });
    assert.deepEqual([guests.status, JSON.parse(guests.body)], [200, []]);
  });

  test('without its session, from elsewhere, or under another name it does nothing', async () => {
    const { base, cookie } = await login();
    const own = { cookie, origin: base.origin, 'stasis-page': '1' };
    const url = new URL('v1/guests', base);
    const refused: [string, string, Record<string, string>][] = [
      ['no cookie', 'GET', { origin: base.origin }],
      ['a made-up cookie', 'GET', { ...own, cookie: `${cookie}x` }],
      ['a name that DNS points here', 'GET', { ...own, host: `evil.example:${base.port}` }],
      ['localhost', 'GET', { ...own, host: `localhost:${base.port}` }],
      ['another site', 'GET', { cookie, origin: 'https://evil.example' }],
      ['another port of this host', 'GET', { cookie, origin: 'http://127.0.0.1:1' }],
      ['another port, without an origin', 'GET', { cookie, 'sec-fetch-site': 'same-site' }],
      ['another site, without an origin', 'GET', { cookie, 'sec-fetch-site': 'cross-site' }],
      ['a change without an origin', 'POST', { cookie }],
      ['a sandboxed page', 'POST', { cookie, origin: 'null' }],
      ['a form', 'POST', { cookie, origin: base.origin }],
    ];
    for (const [who, method, headers] of refused) {
      const answer = await ask(url, method, headers);
      assert.equal(answer.status, 401, who);
      assert.equal(JSON.parse(answer.body).error.code, 'unauthorized', who);
    }
    assert.equal((await ask(new URL('/v1/guests', base), 'GET', own)).status, 404, 'outside its path');
    assert.equal((await ask(new URL('/', base), 'GET', {})).status, 404, 'who does not know its path');
    const invalid = await ask(
      url,
      'POST',
      { ...own, 'content-type': 'application/json' },
      '{"definition":{}}',
    );
    assert.equal(JSON.parse(invalid.body).error.code, 'invalid-definition', 'the page itself gets through');
  });

  test('a WebSocket is held to the same', async () => {
    const { base, cookie } = await login();
    const statusOf = async (headers: Record<string, string>) => {
      const socket = connect(Number(base.port), '127.0.0.1');
      const lines = Object.entries({
        host: base.host,
        upgrade: 'websocket',
        connection: 'Upgrade',
        ...headers,
      });
      socket.write(
        `GET ${base.pathname}v1/guests/none/console HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
      );
      return Number((await text(socket)).split(' ')[1]);
    };
    assert.equal(await statusOf({ cookie, origin: base.origin }), 404, 'the daemon has no such guest');
    assert.equal(await statusOf({ cookie }), 403);
    assert.equal(await statusOf({ origin: base.origin }), 403);
    assert.equal(await statusOf({ cookie, origin: 'http://127.0.0.1:1' }), 403);
    assert.equal(await statusOf({ cookie, origin: base.origin, host: 'evil.example' }), 403);
  });

  test("the page runs no script but its own, in nobody else's frame", async () => {
    const { base } = await login();
    const { status, headers, body } = await ask(base, 'GET', {});
    assert.equal(status, 200);
    const policy = String(headers['content-security-policy']);
    for (const rule of [
      "default-src 'none'",
      "script-src 'self'",
      "frame-ancestors 'none'",
      "base-uri 'none'",
    ])
      assert.ok(policy.split('; ').includes(rule), rule);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['referrer-policy'], 'no-referrer');
    assert.doesNotMatch(
      body,
      /<script(?![^>]*src=)|https?:|\son\w+=/,
      'no inline script, nothing from elsewhere',
    );
  });

  test('a daemon that is away is told as that, and is found again', async () => {
    const { base, cookie } = await login();
    await lab.endDaemon('SIGKILL');
    const away = await ask(new URL('v1/guests', base), 'GET', { cookie });
    assert.deepEqual([away.status, JSON.parse(away.body).error.code], [503, 'daemon-unreachable']);
    await lab.startDaemon();
    assert.equal((await ask(new URL('v1/guests', base), 'GET', { cookie })).status, 200);
  });

  test('`stasis web` prints a link, serves until it is interrupted, and logs no secret', async () => {
    const main = join(import.meta.dirname, '../../src/main.ts');
    const child = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', main, 'web', '--connect', `unix:${lab.paths.socket}`],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    const errors = text(child.stderr);
    const [printed] = await once(child.stdout, 'data');
    const link = new URL(String(printed).trim());
    assert.equal(link.hostname, '127.0.0.1');
    const base = new URL(link.pathname, link);
    const secret = link.hash.slice('#secret='.length);
    assert.equal(secret.length, 43);
    const own = { origin: base.origin, 'stasis-page': '1' };
    const { headers } = await ask(new URL('session', base), 'POST', own, secret);
    const cookie = headers['set-cookie']?.[0]?.split(';')[0] ?? '';
    assert.equal((await ask(new URL('v1/host', base), 'GET', { cookie })).status, 200);
    child.kill('SIGINT');
    const [status] = await once(child, 'exit');
    assert.equal(status, 0);
    const logged = (await errors) + (await lab.log());
    assert.equal(logged.includes(secret) || logged.includes(cookie.split('=')[1] ?? '?'), false);
  });
});
