import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../src/errors.ts';
import { findQemu, parseQemuVersion } from '../../src/qemu/build/binary.ts';
import { machineTypes, resolveMachineType } from '../../src/qemu/build/machine-types.ts';
import { findQemuProcesses, hasEnded, waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { attachQemu, killQemu, launchQemu } from '../../src/qemu/process/process.ts';
import { Lab } from './lab.ts';

const UUID = '6c2d7e1a-3b0f-4a55-9d0c-8e1f2a3b4c5d';

test('a guest outlives the connection and is found again', async () => {
  await using lab = await Lab.open();
  const launched = await lab.launch('guest', ['-uuid', UUID]);
  await launched.qmp.close();
  {
    await using again = await attachQemu(launched.runDirectory, { expectedUuid: UUID.toUpperCase() });
    assert.equal(again?.pid, launched.pid);
    assert.equal((await again.qmp.execute('query-status')).running, true);
  }
  await assert.rejects(attachQemu(launched.runDirectory, { expectedUuid: crypto.randomUUID() }), {
    code: 'qemu-failed',
    message: /another guest/,
  });
  assert.equal(await hasEnded(launched.pid), false);
});

test('the end of a guest is an event, launched or attached', async () => {
  await using lab = await Lab.open();
  const launched = await lab.launch('guest');
  await launched.qmp.close();
  const attached = await attachQemu(launched.runDirectory, {});
  assert.ok(attached);
  await attached.qmp.execute('quit');
  assert.deepEqual(await launched.exited, { code: 0, signal: null });
  assert.deepEqual(await attached.exited, { code: null, signal: null });
  assert.equal((await attached.qmp.closed).code, 'guest-crashed');
  assert.equal(await attachQemu(launched.runDirectory, {}), undefined);
});

test('a guest that is killed when it is found again is none', async () => {
  await using lab = await Lab.open();
  const launched = await lab.launch('guest');
  await launched.qmp.close();
  process.kill(launched.pid, 'SIGSTOP'); // the kernel accepts connections for it
  const found = attachQemu(launched.runDirectory, {});
  await delay(100);
  process.kill(launched.pid, 'SIGKILL');
  assert.equal(await found, undefined);
  await waitForEnd(launched.pid, 10_000);
});

test('QEMU that ends at its start tells why, and leaves no process', async () => {
  await using lab = await Lab.open();
  await assert.rejects(lab.launch('guest', ['-device', 'no-such-device']), (error) => {
    assert.ok(error instanceof StasisError);
    assert.equal(error.code, 'qemu-failed');
    assert.match(error.message, /no-such-device/);
    return true;
  });
  assert.deepEqual(await findQemuProcesses(lab.path('guest')), []);
});

test('a binary that is not there is told as missing', async () => {
  await using lab = await Lab.open();
  const launch = launchQemu({ binary: '/nonexistent/qemu', args: [], runDirectory: lab.path('guest') });
  await assert.rejects(launch, { code: 'qemu-missing' });
});

test('an abort or a time limit during the start leaves no process', async () => {
  await using lab = await Lab.open();
  const runDirectory = lab.runDirectory('guest');
  const stuck = { binary: '/bin/sleep', args: ['60'], runDirectory }; // never makes a socket, and refuses our options
  await assert.rejects(launchQemu(stuck), { code: 'qemu-failed' });
  const abort = AbortSignal.abort();
  await assert.rejects(launchQemu({ ...stuck, signal: abort }), { code: 'cancelled' });
  const slow = {
    binary: lab.binary.path,
    args: ['-machine', 'none', '-display', 'none'],
    runDirectory,
    timeoutMs: 0,
  };
  await assert.rejects(launchQemu(slow), { code: 'timeout' });
  assert.deepEqual(await findQemuProcesses(runDirectory), []);
});

test('killing makes sure that nothing is left, any number of times', async () => {
  await using lab = await Lab.open();
  const { pid, runDirectory, exited } = await lab.launch('guest');
  await killQemu(runDirectory, { graceMs: 30_000 });
  assert.deepEqual(await exited, { code: 0, signal: null });
  assert.equal(await hasEnded(pid), true);
  await assert.rejects(access(`${runDirectory}/qmp.sock`));
  await killQemu(runDirectory);
});

test('a guest that does not react is killed all the same', async () => {
  await using lab = await Lab.open();
  const { pid, runDirectory, exited } = await lab.launch('guest');
  process.kill(pid, 'SIGSTOP');
  await killQemu(runDirectory, { graceMs: 50 });
  assert.deepEqual(await exited, { code: null, signal: 'SIGKILL' });
});

test('killing spares whoever else lives in the directory, or another guest', async () => {
  await using lab = await Lab.open();
  const mine = await lab.launch('mine');
  const other = await lab.launch('other');
  const bystander = spawn('/bin/sleep', ['60'], { cwd: mine.runDirectory, stdio: 'ignore' });
  await once(bystander, 'spawn');
  try {
    await killQemu(mine.runDirectory);
    assert.equal(bystander.exitCode, null);
    assert.equal((await other.qmp.execute('query-status')).running, true);
  } finally {
    bystander.kill();
    await once(bystander, 'exit');
  }
});

test('the log and the pid are where they are looked for', async () => {
  await using lab = await Lab.open();
  const { pid, runDirectory } = await lab.launch('guest');
  assert.equal(Number(await readFile(`${runDirectory}/qemu.pid`, 'utf8')), pid);
  assert.equal(await readFile(`${runDirectory}/qemu.log`, 'utf8'), '');
});

test('QEMU is found, or the error says where to get one', async () => {
  const binary = await findQemu();
  assert.ok(binary.version.major >= 9);
  assert.equal((await findQemu({ PATH: '', STASIS_QEMU: binary.path })).path, binary.path);
  await assert.rejects(findQemu({ PATH: '/nonexistent' }), {
    code: 'qemu-missing',
    message: /bookworm-backports/,
  });
  await assert.rejects(findQemu({ PATH: '/bin:/usr/bin', STASIS_QEMU: '/bin/echo' }), { code: /qemu/ });
  assert.deepEqual(parseQemuVersion('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)').version, {
    major: 7,
    minor: 2,
    micro: 22,
  });
});

test('a machine type is pinned to its version', async () => {
  const binary = await findQemu();
  assert.match(await resolveMachineType(binary, 'q35'), /^pc-q35-\d+\.\d+$/);
  assert.equal(await resolveMachineType(binary, 'pc-q35-9.0'), 'pc-q35-9.0');
  await assert.rejects(resolveMachineType(binary, 'pdp-11'), { code: 'unsupported' });
  assert.equal(await machineTypes(binary), await machineTypes(binary));
});
