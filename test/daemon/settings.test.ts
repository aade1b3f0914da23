import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSettings } from '../../src/daemon/settings.ts';

const read = (text: string) => parseSettings(text, '/etc/stasis/stasis.yaml').disks;

test('settings are read, and what is not there is as by default', () => {
  const byDefault = { compactAboveDepth: 20, compactAfterSeconds: 60, compactBytesPerSecond: 50 * 1024 ** 2 };
  assert.deepEqual(read(''), byDefault);
  assert.deepEqual(read('# nothing\ndisks: {}\n'), byDefault);
  assert.deepEqual(
    read('disks:\n  compactAboveDepth: 10\n  compactAfterSeconds: 0.5\n  compactBytesPerSecond: 1.5 GiB\n'),
    {
      compactAboveDepth: 10,
      compactAfterSeconds: 0.5,
      compactBytesPerSecond: 1.5 * 1024 ** 3,
    },
  );
  assert.equal(read('disks: {compactAboveDepth: false}').compactAboveDepth, null);
  assert.equal(read('disks: {compactBytesPerSecond: 4096}').compactBytesPerSecond, 4096);
});

test('whom QEMU runs as is a name or a number, and nobody said unless it is', () => {
  const user = (text: string) => parseSettings(text, 'stasis.yaml').qemu.user;
  assert.equal(user(''), null);
  assert.equal(user('qemu: {}'), null);
  assert.equal(user('qemu: {user: stasis-qemu}'), 'stasis-qemu');
  assert.equal(user('qemu: {user: 64321}'), '64321');
  assert.throws(() => user('qemu: {user: -1}'), /qemu\.user/);
  assert.throws(() => user('qemu: {usr: a}'), /qemu: unknown key "usr"; did you mean "user"/);
});

test('what is wrong is told with file, key and the nearest key', () => {
  const refuses = (text: string, message: RegExp) =>
    assert.throws(() => read(text), { code: 'invalid-request', message }, text);
  refuses('disk: {}', /^\/etc\/stasis\/stasis\.yaml: unknown key "disk"; did you mean "disks"/);
  refuses(
    'disks: {compactAboveDeph: 3}',
    /disks: unknown key "compactAboveDeph"; did you mean "compactAboveDepth"/,
  );
  refuses('disks: {compactAboveDepth: 1}', /disks\.compactAboveDepth: /);
  refuses('disks: {compactBytesPerSecond: fast}', /disks\.compactBytesPerSecond: "fast" is not a size/);
  refuses('disks: {compactBytesPerSecond: 0}', /disks\.compactBytesPerSecond/);
  refuses('disks: [', /stasis\.yaml:\d+:\d+: /);
  refuses('7', /stasis\.yaml: /);
});

test('a policy for guests with none of their own is read as strictly as theirs', () => {
  const policy = (text: string) => parseSettings(text, 'stasis.yaml').policy;
  assert.deepEqual(policy(''), {});
  assert.deepEqual(policy('policy: {onBoot: restore, order: 5}'), { onBoot: 'restore', order: 5 });
  assert.throws(
    () => policy('policy: {onBot: restore}'),
    /policy: unknown key "onBot"; did you mean "onBoot"/,
  );
  assert.throws(() => policy('policy: {onBoot: dance}'), /policy\.onBoot: /);
});

test('checksums and scrubbing are on unless they are turned off, and a time that is none is refused', () => {
  const { checksums, scrub } = parseSettings('', 'stasis.yaml');
  assert.deepEqual(checksums, { afterSeconds: 30, bytesPerSecond: 200 * 1024 ** 2 });
  assert.deepEqual(scrub, {
    schedule: { cron: '0 3 * * 0', timeZone: null },
    bytesPerSecond: 50 * 1024 ** 2,
  });
  const off = parseSettings('checksums: false\nscrub: false', 'stasis.yaml');
  assert.deepEqual([off.checksums, off.scrub], [null, null]);
  const own = parseSettings('scrub: {schedule: "30 2 1 * *", timeZone: Europe/Berlin}', 'stasis.yaml').scrub;
  assert.deepEqual(own?.schedule, { cron: '30 2 1 * *', timeZone: 'Europe/Berlin' });
  assert.throws(() => parseSettings('scrub: {schedule: weekly}', 'stasis.yaml'), /scrub\.schedule: .*weekly/);
  assert.throws(
    () => parseSettings('scrub: {shedule: "0 3 * * *"}', 'stasis.yaml'),
    /did you mean "schedule"/,
  );
});
