/** What a restore and a resume put right in the guest, and says of it: with the distribution's guest agent, and without. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { OperationKind, Outcome } from '../../src/api/schemas.ts';
import { GuestAgent } from '../../src/qemu/guest-agent.ts';
import { withShortSocketPath } from '../../src/socket-path.ts';
import { Lab } from '../support/lab.ts';

const GUEST = 'web1';

test('a guest with an agent has the right time after a restore, also one saved in the middle of a command', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, { disks: 1, cmdline: 'agent', extra: { agent: true } });
  await witness.close();
  {
    await using _ = await agentRuns(lab); // the channel has one client at a time
  }
  await sendHalfACommand(lab);
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await delay(4_000); // the clock of the host goes on, that of the image doesn't

  await lab.client.restoreSaveImage(GUEST, 'a');
  {
    const { agent, clock } = await outcomesOf(lab, 'restore');
    assert.equal(agent?.outcome, 'done', agent?.message);
    assert.equal(clock?.outcome, 'done', clock?.message);
    const [, behind = '', off = ''] =
      /it was (\d+\.\d+) s behind the host's and is now (\d+\.\d+) s/.exec(clock?.message ?? '') ?? [];
    assert.ok(Number(behind) >= 4, `it was ${behind} s behind`);
    assert.ok(Number(off) < 1, `it is ${off} s off`);
  }
  await using agent = await agentRuns(lab);
  const asked = Date.now();
  const guestMs = await agent.getTime();
  assert.ok(guestMs > asked - 1_000 && guestMs < Date.now() + 1_000, 'the guest says so itself');
  assert.ok((await agent.info()).commands.includes('guest-set-time'));
});

test('a guest that stood still, restored paused or not, has the right time when it is resumed', async () => {
  await using lab = await Lab.create();
  await using witness = await lab.running(GUEST, { disks: 1, cmdline: 'agent', extra: { agent: true } });
  await witness.close();
  {
    await using _ = await agentRuns(lab);
  }
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.restoreSaveImage(GUEST, 'a', { paused: true });
  await delay(2_000);
  await lab.client.resume(GUEST);
  const { clock } = await outcomesOf(lab, 'resume');
  assert.equal(clock?.outcome, 'done', clock?.message);
  const [, behind = '', off = ''] =
    /it was (\d+\.\d+) s behind the host's and is now (\d+\.\d+) s/.exec(clock?.message ?? '') ?? [];
  assert.ok(Number(behind) >= 2, `it was ${behind} s behind`);
  assert.ok(Number(off) < 1, `it is ${off} s off`);
});

test('a restore succeeds, and says what it could not do, where no agent runs or none was defined', async () => {
  await using lab = await Lab.create();
  await using _ = await lab.running(GUEST, { disks: 1, extra: { agent: true } });
  await lab.client.createSaveImage(GUEST, { name: 'a', live: true });
  await lab.client.restoreSaveImage(GUEST, 'a');
  const silent = await outcomesOf(lab, 'restore');
  assert.equal(silent.agent?.outcome, 'failed');
  assert.match(silent.agent?.message ?? '', /qemu-guest-agent does not run there/);
  assert.equal(silent.clock?.outcome, 'skipped');
  assert.match(silent.clock?.message ?? '', /about \d+ s behind until the guest synchronizes it/);

  await using other = await lab.running('web2', { disks: 1 });
  await lab.client.createSaveImage('web2', { name: 'a', live: true });
  await other.close();
  await lab.client.restoreSaveImage('web2', 'a');
  const none = await outcomesOf(lab, 'restore');
  assert.deepEqual(
    { outcome: none.agent?.outcome, message: none.agent?.message },
    { outcome: 'skipped', message: 'the guest was defined without an agent' },
  );
  await lab.client.restoreSaveImage('web2', 'a', { paused: true });
  assert.equal((await outcomesOf(lab, 'restore')).clock?.message, 'the guest is paused');
});

/** The outcomes of the latest operation of a kind, by name. */
async function outcomesOf(lab: Lab, wanted: OperationKind): Promise<Partial<Record<string, Outcome>>> {
  const [latest] = (await lab.client.listOperations()).filter(({ kind }) => kind === wanted);
  return Object.fromEntries((latest?.outcomes ?? []).map((outcome) => [outcome.name, outcome]));
}

/** A conversation of the test's own, as soon as the agent in the guest has begun to work. */
async function agentRuns(lab: Lab): Promise<GuestAgent> {
  const path = await agentSocket(lab);
  for (let attempt = 1; ; attempt += 1) {
    try {
      const agent = await GuestAgent.connect(path, { budgetMs: 30_000 });
      await agent.ping();
      return agent;
    } catch (error) {
      if (attempt === 20) throw error;
    }
  }
}

async function sendHalfACommand(lab: Lab): Promise<void> {
  await withShortSocketPath(await agentSocket(lab), async (path) => {
    const socket = createConnection(path);
    await once(socket, 'connect');
    socket.end('{"execute": "guest-set-time", "arguments": {"ti');
    await once(socket.resume(), 'close');
  });
}

async function agentSocket(lab: Lab): Promise<string> {
  const directory = join(lab.paths.run, 'guests');
  const [instance = ''] = await readdir(directory);
  return join(directory, instance, 'agent.sock');
}
