import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge, readTimex } from '../../src/daemon/doctor/clock.ts';
import { parseMeminfo } from '../../src/daemon/doctor/memory.ts';
import { faultsCure } from '../../src/daemon/doctor/qemu.ts';
import { listsDeviceMapper } from '../../src/daemon/doctor/storage.ts';

test('a clock is synchronized when the kernel or systemd says so, and unknown when nobody does', () => {
  const timex = (status: number) => {
    const buffer = Buffer.alloc(256);
    buffer.writeBigInt64LE(1_500n, 24);
    buffer.writeInt32LE(status, 40);
    return buffer;
  };
  assert.deepEqual(readTimex(0, timex(0x2001)), { synchronized: true, maxErrorMs: 1.5 });
  assert.equal(readTimex(5, timex(0x2001)).synchronized, false, 'TIME_ERROR');
  assert.equal(readTimex(0, timex(0x40)).synchronized, false, 'STA_UNSYNC');

  assert.match(judge({ synchronized: true, maxErrorMs: 1.5 }, false).message, /within 2 ms/);
  assert.equal(judge({ synchronized: false, maxErrorMs: 16e3 }, true).status, 'ok');
  const unsynchronized = judge({ synchronized: false, maxErrorMs: 16e3 }, false);
  assert.equal(unsynchronized.status, 'degraded');
  assert.match(unsynchronized.cure ?? '', /chrony/);
  assert.match(judge(undefined, false).message, /^unknown/);
});

test('memory and drivers are read as the kernel writes them', () => {
  const info = parseMeminfo('MemAvailable:   1024 kB\nActive(anon):  7 kB\nHugePages_Total:      12\n');
  assert.deepEqual(
    [...info],
    [
      ['MemAvailable', 1024],
      ['Active(anon)', 7],
      ['HugePages_Total', 12],
    ],
  );
  assert.equal(listsDeviceMapper(' 59 rfkill\n236 device-mapper\n'), true);
  assert.equal(listsDeviceMapper(' 59 not-device-mapper\n'), false);
});

test('who is refused userfaultfd is told what will do on that kernel', () => {
  assert.match(faultsCure(false, true), /udev\/rules\.d.*\n.*udevadm[^]*sysctl/);
  assert.match(faultsCure(false, false), /^as root: sysctl vm\.unprivileged_userfaultfd=1/);
  assert.doesNotMatch(faultsCure(true, true), /udev/);
});
