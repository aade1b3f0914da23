/** QEMU ends while a button is pressed: nothing of that stands in the way of what is done next. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from '../support/lab.ts';

const GUEST = 'web1';

test('a guest whose QEMU ends while it is paused, resumed or reset has crashed, and can be started again', async () => {
  await using lab = await Lab.create();
  const { client } = lab;
  await lab.define(GUEST, { system: 'bare', disks: 1 });
  for (const button of ['pause', 'resume', 'reset'] as const) {
    await client.start(GUEST);
    if (button === 'resume') await client.pause(GUEST);
    await lab.failAt(`${button}/${button}:before=guest`);
    await assert.rejects(client[button](GUEST), { code: /guest-crashed|invalid-state/, guest: GUEST });
    await lab.failAt();
    assert.equal((await client.getGuest(GUEST)).state, 'crashed', button);
  }
  await lab.endDaemon();
  await lab.startDaemon();
  await client.start(GUEST);
});
