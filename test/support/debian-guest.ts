/** A real Debian system as guest, with a load of SQLite and of files in it: debian-guest/, built by scripts/build-debian-guest.ts. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { fromStored } from '../../src/stored.ts';
import { AgentShell } from './agent-shell.ts';
import { QUICK_BOOT, type Lab } from './lab.ts';

const run = promisify(execFile);

const BUILT = join(import.meta.dirname, '../../.cache/debian-guest');
const CHECK = '/usr/local/lib/stasis-load/check.py';
const BOOT_TIMEOUT_MS = 300_000;
const PROGRESS_TIMEOUT_MS = 120_000;
const POLL_MS = 200;

/** What a writer says of itself in memory: see load.py. */
export interface Claim {
  readonly begun: number;
  readonly done: number;
  readonly errors: number;
  readonly firstError: string;
}

/** By the name of the writer. */
export type Claims = Readonly<Record<string, Claim>>;

/** By the name of the writer: the last of its steps that a disk holds. */
export type Held = Readonly<Record<string, number>>;

interface Findings {
  readonly before: Claims;
  readonly held: Held;
  readonly violations: readonly string[];
  readonly after: Claims;
}

/** Defines and starts the guest, and waits until its load runs. Its root disk is a layer over the one that was built. */
export async function startDebian(lab: Lab, name: string): Promise<void> {
  const root = join(lab.home, `${name}.qcow2`);
  const base = join(BUILT, 'load/disk.raw');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', root]);
  await lab.client.defineGuest({
    name,
    memory: '256MiB',
    accelerator: 'tcg',
    boot: {
      kernel: join(BUILT, 'load/vmlinuz'),
      initrd: join(BUILT, 'load/initrd.gz'),
      cmdline: `console=ttyS0 quiet ${QUICK_BOOT.join(' ')}`,
    },
    disks: [{ name: 'root', path: root, format: 'qcow2' }],
    agent: true,
  });
  await lab.client.start(name);
  await consoleSays(lab, name, 'stasis-load: ready');
}

async function consoleSays(lab: Lab, name: string, words: string): Promise<void> {
  const signal = AbortSignal.timeout(BOOT_TIMEOUT_MS);
  const console = await lab.client.openConsole(name, { signal });
  let said = '';
  try {
    for await (const chunk of console) {
      said = (said + String(chunk)).slice(-10_000);
      if (said.includes(words)) return;
    }
  } catch (error) {
    throw new Error(`the guest never said "${words}" but:\n${said}`, { cause: error });
  }
}

/**
 * Has the guest itself look at what its load has on the disk, while it goes on, and holds that against memory.
 * @returns what the writers said afterwards
 */
export async function checkDebian(lab: Lab, name: string): Promise<Claims> {
  const { pid } = await lab.client.getGuest(name);
  assert.ok(pid !== null, `${name} runs`);
  await using shell = await AgentShell.open(pid);
  const { before, held, violations, after } = fromStored<Findings>(
    await shell.run('/usr/bin/python3', CHECK),
  );
  assert.deepEqual(violations, [], 'the data is what it must be');
  assertNoErrors(after);
  for (const [writer, step] of Object.entries(held)) {
    const [least, most] = [before[writer]?.done ?? NaN, after[writer]?.begun ?? NaN];
    assert.ok(
      least <= step && step <= most,
      `${writer}: step ${step} on the disk, from ${least} to ${most} in memory`,
    );
  }
  return after;
}

/** Checks the guest until each writer has gone beyond what it said then. */
export async function checkDebianGoesOn(lab: Lab, name: string, then: Claims): Promise<void> {
  const giveUpAt = performance.now() + PROGRESS_TIMEOUT_MS;
  for (;;) {
    const now = await checkDebian(lab, name);
    const behind = Object.keys(then).filter(
      (writer) => (now[writer]?.done ?? 0) <= (then[writer]?.begun ?? 0),
    );
    for (const writer of Object.keys(then))
      assert.ok((now[writer]?.done ?? 0) >= (then[writer]?.done ?? 0), `${writer} begins at the image`);
    if (behind.length === 0) return;
    assert.ok(performance.now() < giveUpAt, `these have stopped: ${behind.join(', ')}`);
    await delay(POLL_MS);
  }
}

export function assertNoErrors(claims: Claims): void {
  for (const [writer, { errors, firstError }] of Object.entries(claims))
    assert.equal(errors, 0, `${writer} found an error: ${firstError}`);
}
