/** What those see who look after a host: metrics, log, health, and who did what. On a real guest. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { userInfo } from 'node:os';
import { after, before, describe, test } from 'node:test';
import type { IncomingMessage } from 'node:http';
import { StasisError, type AuditEntry } from '../../src/client/index.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { Lab } from '../support/lab.ts';

describe('a guest that is saved, and somebody who looks at it', () => {
  let lab: Lab;
  before(async () => {
    lab = await Lab.create();
    await lab.running('web');
  });
  after(() => lab[Symbol.asyncDispose]());

  const metric = (metrics: string, name: string) => {
    const line = metrics.split('\n').find((candidate) => candidate.startsWith(`${name} `));
    return line === undefined ? undefined : Number(line.slice(name.length + 1));
  };

  test('metrics tell what the image says, and what became of operations', async () => {
    const image = await lab.client.createSaveImage('web', { name: 'first', live: true });
    await assert.rejects(lab.client.createSaveImage('web', { name: 'first', live: true }), {
      code: 'image-exists',
    });
    await assert.rejects(lab.client.createSaveImage('web', { live: true, maxPauseMs: 0.001 }), {
      code: 'pause-too-long',
    });
    const metrics = await lab.client.metrics();
    const pause = `stasis_live_save_pause_seconds_sum{method="${image.method}"}`;
    assert.equal(metric(metrics, pause), (image.pauseMs ?? 0) / 1000);
    assert.equal(metric(metrics, 'stasis_saved_bytes_total'), image.bytesWritten);
    assert.equal(metric(metrics, 'stasis_operations_total{kind="save",outcome="done"}'), 1);
    assert.equal(metric(metrics, 'stasis_operations_total{kind="start",outcome="done"}'), 1);
    assert.equal(metric(metrics, 'stasis_operation_failures_total{kind="save",code="pause-too-long"}'), 1);
    assert.equal(metric(metrics, 'stasis_calls_refused_total{code="image-exists"}'), 1);
    assert.equal(metric(metrics, 'stasis_guests{state="running"}'), 1);
    assert.equal(metric(metrics, 'stasis_images{state="ready"}'), 1);
    assert.equal(metric(metrics, 'stasis_disk_chain_depth{guest="web",disk="disk0"}'), 2);
    const newest = metric(metrics, 'stasis_guest_newest_image_timestamp_seconds{guest="web"}');
    assert.equal(newest, Date.parse(image.createdAt) / 1000);
    assert.equal(metric(metrics, 'stasis_operations_unsettled'), 0);
    const stored =
      (metric(metrics, 'stasis_stored_bytes{part="memory"}') ?? 0) +
      (metric(metrics, 'stasis_stored_bytes{part="layers"}') ?? 0);
    const status = await lab.client.hostStatus();
    assert.equal(status.storedBytes, stored);
    assert.equal(status.images, 1);
    assert.equal(stored, image.storedBytes);
    // As a scraper asks.
    const reply = await get(lab, '/metrics');
    assert.match(reply.headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/);
    assert.match(await text(reply), /^# TYPE stasis_disk_chain_depth gauge$/m);
    assert.match((await lab.cli(['metrics'])).stdout, /^stasis_guests\{state="running"\} 1$/m);
  });

  test('each line of the log that is for an operation tells which', async () => {
    const [save] = (await lab.client.listOperations()).filter(
      ({ kind, state }) => kind === 'save' && state === 'done',
    );
    assert.ok(save !== undefined);
    const lines = (await lab.log()).split('\n').filter((line) => line.startsWith('{'));
    const documents = lines.map((line): Record<string, unknown> => JSON.parse(line));
    const own = documents.filter(({ operation }) => operation === save.id);
    assert.deepEqual(
      own.map(({ level, msg }) => [level, msg]),
      [
        ['info', 'save web / first begins'],
        ['info', 'POST /v1/guests/:guest/images: accepted'],
        ['info', 'save web / first done'],
      ],
    );
    for (const { guest, image, request: id } of own)
      assert.deepEqual([guest, image, typeof id], ['web', 'first', 'string']);
    assert.equal(new Set(own.map(({ request: id }) => id)).size, 1);
    const failed = documents.find(({ code }) => code === 'pause-too-long');
    assert.equal(failed?.['level'], 'warn');
  });

  test('the audit trail tells who called, also in vain and from the page, and what came of it', async () => {
    await using gateway = await Gateway.open(lab.paths.socket, 0);
    await callFromPage(gateway.link(), 'v1/guests/web/pause');
    (await lab.client.openConsole('web')).destroy();
    const entries = await lab.client.listAudit({ guest: 'web' });
    const told = (wanted: (entry: AuditEntry) => boolean) =>
      entries.filter(wanted).map(({ action, image, outcome }) => [action, image, outcome]);
    assert.deepEqual(
      told(({ image }) => image === 'first'),
      [
        ['POST /v1/guests/:guest/images', 'first', 'accepted'],
        ['save', 'first', 'done'],
        ['POST /v1/guests/:guest/images', 'first', 'image-exists'],
      ],
    );
    const own = {
      uid: process.getuid?.(),
      gid: process.getgid?.(),
      pid: process.pid,
      user: userInfo().username,
    };
    const [call] = entries.filter(({ outcome }) => outcome === 'image-exists');
    assert.deepEqual(call?.caller, { via: 'socket', ...own, session: null, address: null, credential: null });
    assert.deepEqual(call?.parameters, { name: 'first', live: true });
    const paused = entries.filter(({ action }) => action.endsWith('pause'));
    assert.deepEqual(
      paused.map(({ caller }) => [caller?.via, caller?.uid, /^[0-9a-f]{8}$/.test(caller?.session ?? '')]),
      [
        ['web', own.uid, true],
        ['web', own.uid, true],
      ],
    );
    assert.equal(entries.at(-1)?.action, 'open console');

    const { stdout } = await lab.cli(['audit', '--guest', 'web', '--since', '1h']);
    assert.match(stdout, /pause-too-long/);
    const controller = new AbortController();
    const followed: string[] = [];
    await lab.client.resume('web');
    for await (const { action } of lab.client.followAudit({ after: entries.at(-1)?.id }, controller)) {
      followed.push(action);
      if (action === 'resume') break;
    }
    assert.deepEqual(followed, ['POST /v1/guests/:guest/resume', 'resume']);
  });

  test('an entry that somebody changes, takes out or writes anew is found', async () => {
    const intact = await lab.client.verifyAudit();
    assert.equal(intact.problem, null);
    const newest = intact.last?.hash ?? '';
    await lab.endDaemon('SIGTERM');
    const path = join(lab.paths.data, 'catalog.sqlite');
    const change = (statement: string) => {
      using catalog = new DatabaseSync(path);
      catalog.exec(statement);
    };
    assert.throws(() => change(`update audit set outcome = 'done'`), /not changed/);
    change(`drop trigger auditIsNotChanged; update audit set guest = 'other' where id = 3`);
    await lab.startDaemon();
    const changed = await lab.cli(['audit', '--verify']);
    assert.deepEqual([changed.status, /entry 3 was changed/.test(changed.stdout)], [1, true]);
    await lab.endDaemon('SIGTERM');
    change(`update audit set guest = 'web' where id = 3; delete from audit where id = 5`);
    await lab.startDaemon();
    assert.match((await lab.client.verifyAudit()).problem ?? '', /entry 6 follows entry 4/);
    await lab.endDaemon('SIGTERM');
    change('delete from audit where id > 4');
    await lab.startDaemon();
    assert.equal((await lab.client.verifyAudit()).problem, null);
    assert.match((await lab.client.verifyAudit({ expect: newest })).problem ?? '', /no entry has the hash/);
  });

  test('a home without space is alive, but not ready, and says why', async () => {
    assert.deepEqual(JSON.parse(await text(await get(lab, '/healthz'))), { alive: true });
    assert.deepEqual(await lab.client.readiness(), { ready: true, reasons: [], remarks: [] });
    await lab.endDaemon('SIGTERM');
    await mkdir(lab.paths.config, { recursive: true });
    await writeFile(join(lab.paths.config, 'stasis.yaml'), 'minFree: 900T\n');
    await lab.startDaemon();
    assert.equal((await get(lab, '/healthz')).statusCode, 200);
    const reply = await get(lab, '/readyz');
    assert.equal(reply.statusCode, 503);
    assert.match(await text(reply), /MiB free, less than/);
    const { readiness } = await lab.client.hostStatus();
    assert.equal(readiness.ready, false);
    const { checks } = await lab.client.doctor();
    assert.equal(checks.find(({ name }) => name === 'home')?.status, 'missing');
    assert.match((await lab.cli(['host', 'status'])).stdout, /^ready +no$/m);
  });
});

async function get(lab: Lab, path: string): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request({ socketPath: lab.paths.socket, path }, resolve).on('error', reject).end();
  return promise;
}

/** As the page does: trades the link's secret for a session, calls, and waits for the end. */
async function callFromPage(link: string, path: string): Promise<void> {
  const { origin, pathname, hash } = new URL(link);
  const page = origin + pathname;
  const login = await fetch(`${page}session`, {
    method: 'POST',
    body: hash.replace('#secret=', ''),
    headers: { origin, 'stasis-page': '1' },
  });
  const cookie = login.headers.get('set-cookie')?.split(';')[0] ?? '';
  const reply = await fetch(page + path, {
    method: 'POST',
    headers: { origin, cookie, 'stasis-page': '1', accept: 'text/event-stream' },
  });
  const told = await reply.text();
  if (reply.status !== 200) throw new StasisError('internal', told);
}
