/** The test guest with a mounted file system, a program that never stops writing to it (test-guest/files.c), and a guest agent. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { testBoot, type Lab } from './lab.ts';

const run = promisify(execFile);

/** Defines and starts a guest with a counter on one disk and a file system on the other, and waits until its agent answers. */
export async function startWritingFiles(lab: Lab, guest: string, memory?: string): Promise<void> {
  const [counter, files] = [join(lab.home, 'counter.qcow2'), join(lab.home, 'files.raw')];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', counter, '64M']);
  await run('qemu-img', ['create', '-q', '-f', 'raw', files, '64M']);
  await run('/sbin/mkfs.ext4', ['-q', files]);
  await lab.define(guest, {
    disks: 0,
    ...(memory === undefined ? {} : { memory }),
    extra: {
      agent: true,
      boot: testBoot('agent mount=vdb'),
      disks: [
        { name: 'counter', path: counter, format: 'qcow2' },
        { name: 'files', path: files, format: 'raw' },
      ],
    },
  });
  await lab.client.start(guest);
  await writesOn(lab, guest);
  await agentAnswers(lab, guest);
}

/** The agent begins to work some time after the rest of the guest: the first save that finds it is the proof. */
export async function agentAnswers(
  lab: Lab,
  guest: string,
  isAnswer: (reason: string | null) => boolean = (reason) => reason === null,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const { quiesceReason } = await lab.client.createSaveImage(guest, {
      name: 'probe',
      live: true,
      quiesce: true,
    });
    await lab.client.deleteSaveImage(guest, 'probe');
    if (isAnswer(quiesceReason)) return;
    assert.ok(attempt < 20, quiesceReason ?? 'it was frozen');
  }
}

/** The guest is at work: memory and counter agree, and its files grow. */
export async function writesOn(lab: Lab, guest: string, when = 'now'): Promise<void> {
  await using witness = await lab.witness(guest);
  const { records } = await witness.files();
  for (let waitedMs = 0; (await witness.files()).records <= records; waitedMs += 20) {
    assert.ok(waitedMs < 20_000, `${guest} writes on (${when})`);
    await delay(20);
  }
  const { mismatches, ioErrors } = await witness.status();
  assert.deepEqual([mismatches, ioErrors], [0, 0], when);
}
