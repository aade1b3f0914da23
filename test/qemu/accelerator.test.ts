import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { proveKvm, resolveAccelerator } from '../../src/qemu/build/accelerator.ts';
import { PROOF_EXIT_STATUS, proofArguments, proofRom } from '../../src/qemu/build/kvm-proof-program.ts';
import { waitForEnd } from '../../src/qemu/process/process-scan.ts';
import { Lab, run } from './lab.ts';

test('the program of the proof is right: emulation runs it to its end', async () => {
  await using lab = await Lab.open();
  await writeFile(lab.path('rom'), proofRom());
  const args = ['-accel', 'tcg', ...proofArguments(lab.path('rom'))];
  await assert.rejects(run(lab.binary.path, args, { timeout: 60_000 }), { code: PROOF_EXIT_STATUS });
});

test('the proof gives an answer, and auto and kvm follow it', async () => {
  await using lab = await Lab.open();
  const host = { binary: lab.binary, cacheDirectory: lab.path('cache') };
  const chosen = await resolveAccelerator('auto', host);
  assert.equal((await resolveAccelerator('tcg', host)).accelerator, 'tcg');
  if (chosen.accelerator === 'kvm') {
    assert.equal((await resolveAccelerator('kvm', host)).accelerator, 'kvm');
  } else {
    await assert.rejects(resolveAccelerator('kvm', host), {
      code: 'unsupported',
      details: { reason: chosen.reason },
    });
  }
});

test('a guest that does not get done within the limit proves that KVM does not work', async () => {
  await using lab = await Lab.open();
  const { works, reason } = await proveKvm(lab.binary, { timeLimitMs: 1 });
  assert.equal(works, false);
  assert.match(reason, /kvm/i);
});

test('a proof is remembered for this kernel and this QEMU only', async () => {
  await using lab = await Lab.open();
  const host = { binary: lab.binary, cacheDirectory: lab.path('cache') };
  const { accelerator, reason } = await resolveAccelerator('auto', host);
  const [name] = await readdir(host.cacheDirectory).catch(() => []);
  if (name === undefined) return; // no usable /dev/kvm: nothing was proven
  const cache = `${host.cacheDirectory}/${name}`;
  const text = await readFile(cache, 'utf8');
  await writeFile(cache, JSON.stringify({ ...JSON.parse(text), reason: 'as remembered' }));
  assert.equal((await resolveAccelerator('auto', host)).reason, 'as remembered');
  await writeFile(cache, '{"broken');
  assert.deepEqual(await resolveAccelerator('auto', host), { accelerator, reason });
});

test('a proof does not outlive whoever makes it', async (context) => {
  const accelerator = import.meta.resolve('../../src/qemu/build/accelerator.ts');
  const binary = import.meta.resolve('../../src/qemu/build/binary.ts');
  const maker = spawn(
    process.execPath,
    [
      ...['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval'],
      `import { proveKvm } from '${accelerator}';
       import { findQemu } from '${binary}';
       await proveKvm(await findQemu(), { timeLimitMs: 60_000 });`,
    ],
    { stdio: 'ignore' },
  );
  const pid = await proverOf(maker);
  if (pid === undefined) return context.skip('no guest hangs on this KVM, or there is none');
  maker.kill('SIGKILL');
  try {
    await waitForEnd(pid, 30_000);
  } catch (error) {
    process.kill(pid, 'SIGKILL');
    throw error;
  }
});

/** The QEMU that hangs. @returns undefined when its maker ends by itself */
async function proverOf(maker: ChildProcess): Promise<number | undefined> {
  while (maker.exitCode === null) {
    const children = await readFile(`/proc/${maker.pid}/task/${maker.pid}/children`, 'utf8').catch(() => '');
    for (const pid of children.trim().split(' ').filter(Boolean).map(Number)) {
      const [program = '', ...args] = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split(
        '\0',
      );
      if (program.includes('qemu') && args.includes('isa-debug-exit,iobase=0xf4,iosize=1')) return pid;
    }
    await delay(10);
  }
  return undefined;
}
