/** Access from other machines, as people set it up and use it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import type { NewCredential, RemoteStatus } from '../../src/api/remote.ts';
import type { Guest, Image } from '../../src/api/schemas.ts';
import { StasisClient } from '../../src/client/stasis-client.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab } from '../support/lab.ts';
import { contentOf } from '../support/rules.ts';

/** Another machine: a home of its own, in which no daemon runs. */
async function anotherMachine() {
  const home = await mkdtemp(join(tmpdir(), 'stasis-elsewhere-'));
  return { home, [Symbol.asyncDispose]: () => rm(home, { recursive: true }) };
}

test('a guest is saved, restored and used from another machine, by token and by certificate', async () => {
  await using lab = await Lab.create();
  await using there = await anotherMachine();
  const witness = await lab.running('web1', { disks: 1, extra: { labels: ['web'], graphics: 'vnc' } });
  await witness.fill(7, 8);
  await witness.close();

  const json = async <T>(args: readonly string[], input = '', elsewhere = false): Promise<T> => {
    const environment = elsewhere ? { STASIS_HOME: there.home } : {};
    const { status, stdout, stderr } = await lab.cli([...args, '--json'], { input, environment });
    assert.equal(status, 0, stderr);
    return fromStored<T>(stdout);
  };
  const { listen, fingerprint } = await json<RemoteStatus>([
    'remote',
    'setup',
    '--listen',
    '127.0.0.1:0',
    '--name',
    'localhost',
  ]);
  const url = `https://localhost:${listen?.split(':').at(-1)}`;
  const { token = '' } = await json<NewCredential>([
    'remote',
    'grant',
    'alice',
    '--role',
    'operator',
    '--label',
    'web',
  ]);

  // Nobody is believed by their word.
  const early = await lab.cli(['guests', '--connect', url], { environment: { STASIS_TOKEN: token } });
  assert.match(early.stderr, /nobody whom this host trusts vouches for it/);
  await json(['login', url, '--fingerprint', fingerprint ?? ''], token, true);
  const kept = await stat(join(there.home, 'config', 'remotes.json'));
  assert.equal(kept.mode & 0o077, 0);

  const [guest] = await json<Guest[]>(['guests', '--connect', url], '', true);
  assert.equal(guest?.state, 'running');
  const content = await contentOf(lab, 'web1');
  const image = await json<Image>(['save', 'web1', 'point', '--live', '--connect', url], '', true);
  assert.equal(image.state, 'ready');
  await json(['restore', 'web1', 'point', '--yes', '--connect', url], '', true);
  assert.deepEqual(await contentOf(lab, 'web1'), content);

  const file = join(there.home, 'boss.pem');
  await json(['remote', 'grant', 'boss', '--role', 'admin', '--certificate', file]);
  await json(['login', url, '--fingerprint', fingerprint ?? '', '--certificate', file], '', true);
  await json(['host', 'status', '--connect', url], '', true);
  await lab.cli(['remote', 'revoke', 'boss']);
  const late = await lab.cli(['host', 'status', '--connect', url], {
    environment: { STASIS_HOME: there.home },
  });
  assert.equal(late.status, 1);
  assert.match(late.stderr, /needs a token or a certificate that is good here/);

  // It is on again after a restart, at the same address, and off for good when that is asked for.
  await lab.endDaemon();
  await lab.startDaemon();
  const status = await lab.client.remoteStatus();
  assert.equal(status.fingerprint, fingerprint);
  const { authority } = status;
  const port = status.listen?.split(':').at(-1);
  const remote = new StasisClient({
    connect: { kind: 'https', url: new URL(`https://localhost:${port}`), token, authority: authority ?? '' },
  });
  assert.equal((await remote.listGuests()).length, 1);

  // A guest that is taken out of somebody's sight is so at once, also where they look at it.
  const screen = new WebSocket(`wss://localhost:${port}/v1/guests/web1/display`, {
    ca: authority ?? '',
    headers: { authorization: `Bearer ${token}` },
  });
  const greeted = once(screen, 'message');
  const console = await remote.openConsole('web1');
  const admins = await lab.client.openConsole('web1');
  await greeted;
  const unseen = [once(screen, 'close'), once(console, 'close')];
  await lab.client.setLabels('web1', ['db', 'web']);
  assert.equal(console.destroyed || screen.readyState !== WebSocket.OPEN, false);
  await lab.client.setLabels('web1', ['db']);
  await Promise.all(unseen);
  await assert.rejects(remote.openConsole('web1'), { code: 'guest-not-found' });
  assert.equal(admins.destroyed, false);
  admins.destroy();
  await lab.client.setLabels('web1', ['web']);

  const line = await remote.openConsole('web1');
  const ended = new Promise((resolve) => line.once('close', resolve));
  await lab.client.turnOffRemote();
  await ended;
  await assert.rejects(remote.listGuests(), { code: 'daemon-unreachable' });
});
