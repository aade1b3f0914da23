import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { stasis } from '../support/command.ts';

/** A home of its own; the daemon that came to live in it leaves with it. */
class Home implements AsyncDisposable {
  readonly path: string;
  readonly pids = new Set<number>();

  private constructor(path: string) {
    this.path = path;
  }

  static async make(prefix = 'stasis-session-'): Promise<Home> {
    return new Home(await mkdtemp(join(tmpdir(), prefix)));
  }

  /** The pid of the daemon that answers, or that is started to answer. */
  async daemonPid(): Promise<number> {
    const { status, stdout, stderr } = await stasis(['host', 'status', '--json'], {
      env: { STASIS_HOME: this.path },
    });
    assert.equal(status, 0, stderr);
    const { pid }: { pid: number } = JSON.parse(stdout);
    this.pids.add(pid);
    return pid;
  }

  async kill(pid: number, signal: NodeJS.Signals): Promise<void> {
    process.kill(pid, signal);
    this.pids.delete(pid);
    // It is nobody's child any more, so nothing but its absence tells that it has ended.
    while (isAlive(pid)) await delay(10);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.pids) await this.kill(pid, 'SIGTERM');
    await rm(this.path, { recursive: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('the session daemon', { timeout: 300_000 }, () => {
  test('is started by the first command, once, however many there are', async () => {
    await using home = await Home.make();
    const pids = await Promise.all(Array.from({ length: 4 }, () => home.daemonPid()));
    assert.equal(new Set(pids).size, 1);
  });

  test('is started again after it was killed', async () => {
    await using home = await Home.make();
    const first = await home.daemonPid();
    await home.kill(first, 'SIGKILL');
    assert.notEqual(await home.daemonPid(), first);
  });

  test('may live under a path that is longer than the address of a socket', async () => {
    await using home = await Home.make('long'.repeat(40));
    await home.daemonPid();
  });

  test("that can't start says why", async () => {
    await using home = await Home.make();
    await mkdir(join(home.path, 'run'));
    await writeFile(join(home.path, 'state'), 'a file where a directory belongs');
    const { status, stderr } = await stasis(['guests', '--json'], { env: { STASIS_HOME: home.path } });
    assert.equal(status, 1);
    const { error } = JSON.parse(stderr);
    assert.equal(error.code, 'daemon-unreachable');
    assert.match(error.message, /did not start: .*\n.*state/);
    assert.equal(error.details.log, join(home.path, 'run/daemon.log'));
  });
});
