/**
 * The daemon killed at every step of ending and of starting all guests, in pairs. The next one begins again, and every guest
 * is where it was. `STASIS_FAULTS=all` walks both sides of each step.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { HostLab } from '../support/host-lab.ts';
import { checkHousekeeping, contentOf } from '../support/rules.ts';

const GUEST = 'web1';
const PAIRS = [
  ['end-guests:after', 'start-guest:after'],
  ['commit:after', 'start-guest:before'],
  ['look:before', 'commit:after'],
  ['look:after', 'commit:before'],
  ['end-guests:before', 'start-guest:after'],
  ['commit:before', 'start-guest:before'],
] as const;

let host: HostLab;
before(async () => {
  host = await HostLab.create();
  await host.running(GUEST, { onBoot: 'restore' }, 1);
});
after(() => host[Symbol.asyncDispose]());

for (const [ending, starting] of process.env['STASIS_FAULTS'] === 'all' ? PAIRS : PAIRS.slice(0, 1)) {
  test(`killed at ${ending} of save-all, then at ${starting} of restore-all`, async () => {
    const content = await contentOf(host.lab, GUEST);
    await host.lab.endDaemon();
    await host.startDaemon({ STASIS_FAILPOINT: `save-all/${ending}=kill` });
    const cut = Promise.allSettled([host.lab.client.saveAll()]);
    await host.lab.daemonEnded();
    await host.startDaemon();
    await cut;
    await host.lab.client.saveAll();
    assert.equal((await host.lab.client.getGuest(GUEST)).state, 'stopped');

    await host.goDown();
    await host.boot({ STASIS_FAILPOINT: `restore-all/${starting}=kill` });
    await host.lab.daemonEnded();
    await host.startDaemon();
    await host.booted();
    const { boot } = await host.lab.client.hostStatus();
    assert.deepEqual([boot.after, boot.settledAt !== null], ['clean', true]);
    assert.deepEqual(await contentOf(host.lab, GUEST), content);
    await checkHousekeeping(host.lab, GUEST);
  });
}
