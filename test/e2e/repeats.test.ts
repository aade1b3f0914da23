/** Requests that are sent again, since their answer was lost: they did once what they were for. */
import assert from 'node:assert/strict';
import { createServer, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { StasisClient } from '../../src/client/index.ts';
import { Lab } from '../support/lab.ts';

/** A way to the daemon on which, while it is silent, requests arrive and answers don't. */
async function lossyWay(lab: Lab) {
  const path = join(lab.home, 'lossy.sock');
  const way = { path, isSilent: true, keys: [] as string[] };
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const daemon = connect(lab.paths.socket);
    for (const socket of [client, daemon]) {
      open.add(socket);
      socket.on('error', () => socket.destroy());
    }
    client.on('data', (bytes) => {
      const key = /^idempotency-key: (.+)$/im.exec(bytes.toString())?.[1];
      if (key !== undefined) way.keys.push(key.trim());
      daemon.write(bytes);
    });
    daemon.on('data', (bytes) => !way.isSilent && client.write(bytes));
    daemon.on('close', () => client.destroy());
    client.on('close', () => daemon.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  return {
    ...{ way, client: new StasisClient({ connect: `unix:${path}` }) },
    [Symbol.dispose]: () => {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}

test('a save whose answer was lost with the daemon is one save', async () => {
  await using lab = await Lab.create();
  using lossy = await lossyWay(lab);
  const { way, client } = lossy;
  await lab.define('web1', { system: 'bare', disks: 1 });
  await lab.client.start('web1');

  await lab.failAt('save/commit:after=kill');
  const saving = client.createSaveImage('web1', { name: 'point', live: true });
  await lab.daemonEnded();
  await lab.failAt();
  way.isSilent = false;
  await lab.startDaemon();
  const image = await saving;
  assert.equal(image.name, 'point');
  const images = await lab.client.listSaveImages('web1');
  assert.deepEqual(
    images.map(({ createdAt }) => createdAt),
    [image.createdAt],
  );
  assert.ok(way.keys.length >= 2, 'it was sent again');
  assert.equal(new Set(way.keys).size, 1);
});

test('a request that is sent again is answered with its operation', async (t) => {
  await using lab = await Lab.create();
  const { client } = lab;
  const notWaiting = { wait: false } as const;
  await lab.define('web1', { system: 'bare', disks: 1 });

  await t.test('killed as soon as it was recorded, it is told how that ended', async () => {
    await lab.failAt('policy/record:after=kill');
    const changing = client.setPolicy('web1', { order: 7 });
    changing.catch(() => undefined);
    await lab.daemonEnded();
    await lab.failAt();
    await lab.startDaemon();
    await assert.rejects(changing, { code: 'interrupted' });
    const ofKind = (await client.listOperations()).filter(({ kind }) => kind === 'policy');
    assert.equal(ofKind.length, 1);
  });

  await t.test('many at once begin one operation, which the next daemon knows too', async () => {
    const options = { ...notWaiting, idempotencyKey: 'order of web1' };
    const set = () => client.setPolicy('web1', { order: 9 }, options);
    const ids = new Set((await Promise.all([set(), set(), set()])).map(({ id }) => id));
    await lab.endDaemon();
    await lab.startDaemon();
    ids.add((await set()).id);
    assert.equal(ids.size, 1);
  });

  await t.test('another request has another key', async () => {
    const options = { ...notWaiting, idempotencyKey: 'order of web1' };
    await assert.rejects(client.setPolicy('web1', { order: 10 }, options), { code: 'idempotency-conflict' });
    await assert.rejects(client.stop('web1', options), { code: 'idempotency-conflict' });
    await assert.rejects(client.stop('web1', { idempotencyKey: 'ä'.repeat(3) }), {
      code: 'invalid-request',
    });
  });

  await t.test('what failed has failed, what was refused may be tried again', async () => {
    const key = { idempotencyKey: 'a day' };
    await assert.rejects(client.resume('web1', key), { code: 'invalid-state' });
    await lab.failAt('labels/commit:before=error');
    const failing = { idempotencyKey: 'labels' };
    await assert.rejects(client.setLabels('web1', ['a'], failing), { code: 'interrupted' });
    await lab.failAt();
    await assert.rejects(client.setLabels('web1', ['a'], failing), { code: 'interrupted' });
    await client.setLabels('web1', ['a']);
  });

  await t.test('keys are their callers’ own, and what is gone by it is told of', async () => {
    const { listen, authority } = await client.turnOnRemote({ listen: '127.0.0.1:0', names: ['localhost'] });
    const url = new URL(`https://localhost:${listen?.split(':').at(-1)}`);
    const { token } = await client.grantCredential({
      ...{ name: 'boss', kind: 'token', role: 'admin', labels: ['a'], expiresInDays: 1 },
    });
    const other = new StasisClient({ connect: { kind: 'https', url, token, authority: authority ?? '' } });
    const options = { ...notWaiting, idempotencyKey: 'order of web1' };
    const [ours, theirs] = [
      await client.setPolicy('web1', { order: 9 }, options),
      await other.setPolicy('web1', { order: 9 }, options),
    ];
    assert.notEqual(ours.id, theirs.id);
    await client.followOperation(theirs.id);
    const gone = { idempotencyKey: 'undefine' };
    await other.undefineGuest('web1', {}, gone);
    await other.undefineGuest('web1', {}, gone);
    await assert.rejects(other.undefineGuest('web1'), { code: 'guest-not-found' });
  });
});
