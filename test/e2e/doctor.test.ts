/** What the host can do, asked of a daemon of root's and of one without any right. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chown, mkdtemp, readdir, readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Doctor } from '../../src/api/schemas.ts';
import { Lab } from '../support/lab.ts';

const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;
/** The pinned Node.js and the sources may lie where only their owner looks. */
const nobodyRuns =
  isRoot &&
  spawnSync(process.execPath, [join(import.meta.dirname, '../../src/main.ts'), '--version'], {
    uid: NOBODY,
    gid: NOBODY,
    cwd: '/',
  }).status === 0;

test('every check says what it is for, and what could be better says how', async () => {
  await using lab = await Lab.create();
  const report = await lab.client.doctor();
  checkShape(report);
  const { qemu } = await lab.client.hostStatus();
  assert.match(named(report, 'QEMU').message, new RegExp(`^${qemu?.version.split(' ')[0]} .*at /`));
  const features = named(report, 'QEMU features');
  assert.match(features.message, /mapped-ram \(every image\)/);
  assert.doesNotMatch(features.message, /missing: .*(mapped-ram|background-snapshot|postcopy-ram)/);
  assert.match(named(report, 'memory').message, /^\d+\.\d GiB available$/);
  assert.deepEqual(
    await readdir(lab.paths.data).then((names) => names.filter((name) => name.startsWith('doctor'))),
    [],
  );

  const { stdout, status } = await lab.cli(['doctor']);
  assert.equal(status, 0);
  for (const { name, message } of report.checks)
    assert.ok(withoutFigures(stdout).includes(withoutFigures(message)), `${name} is shown`);
});

test('userfaultfd is proven as the user that the daemon is', { skip: !nobodyRuns }, async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-'));
  await chown(home, NOBODY, NOBODY);
  await using lab = await Lab.open(home, { HOME: home }, NOBODY);
  const report = await lab.client.doctor();
  checkShape(report);
  const userfaultfd = named(report, 'userfaultfd');
  if (await everybodyMay()) {
    assert.equal(userfaultfd.status, 'ok', userfaultfd.message);
  } else {
    assert.match(userfaultfd.message, /^refused: /);
    assert.match(userfaultfd.cure ?? '', /sysctl vm\.unprivileged_userfaultfd=1/);
  }
});

/** Free memory and how exact the clock is change between two looks. */
function withoutFigures(text: string): string {
  return text.replaceAll(/\d+/g, 'N');
}

function checkShape({ checks }: Doctor): void {
  for (const { name, serves, status, message, cure } of checks) {
    assert.ok(name !== '' && serves !== '' && message !== '');
    assert.ok(status === 'ok' || cure !== null, `${name} is ${status} and has a cure: ${message}`);
  }
}

function named({ checks }: Doctor, name: string): Doctor['checks'][number] {
  const check = checks.find((candidate) => candidate.name === name);
  assert.ok(check, `${name} is checked`);
  return check;
}

async function everybodyMay(): Promise<boolean> {
  const sysctl = await readFile('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').catch(() => '0');
  const mode = await stat('/dev/userfaultfd').then(
    (device) => device.mode,
    () => 0,
  );
  return sysctl.trim() === '1' || (mode & 0o006) === 0o006;
}
