/** The units, as systemd itself reads them. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { describe, install, planInstallation, uninstall } from '../../src/systemd/install.ts';
import { announcesShutdown } from '../../src/systemd/shutdown-notice.ts';
import { unitFiles, UNITS, type UnitOptions } from '../../src/systemd/units.ts';

const run = promisify(execFile);

const OPTIONS: UnitOptions = {
  scope: 'system',
  program: '/bin/true', // systemd-analyze looks whether it can be executed
  socket: '/run/stasis/stasis.sock',
  storage: ['/var/lib/stasis', '/srv/virtual machines/100%'],
  budgetSeconds: 90,
  environment: { STASIS_QEMU: '/opt/qemu "$new"/bin/qemu' },
};

const doNothing = () => Promise.resolve();

async function directory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'stasis-units-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** @returns what systemd has to say about the units of that directory; nothing when all is right */
async function verify(path: string, scope: 'system' | 'user'): Promise<string> {
  const files = UNITS.map((name) => join(path, name));
  const environment = { ...process.env, XDG_RUNTIME_DIR: path, SYSTEMD_UNIT_PATH: `${path}:` };
  const args = ['verify', `--${scope}`, '--man=no', '--recursive-errors=no', ...files];
  try {
    const { stdout, stderr } = await run('systemd-analyze', args, { env: environment });
    return stdout + stderr;
  } catch (error) {
    if (error instanceof Error && 'stderr' in error && 'code' in error && typeof error.code === 'number')
      return `status ${error.code}: ${String(error.stderr)}`;
    throw error;
  }
}

for (const scope of ['system', 'user'] as const) {
  test(`systemd finds nothing wrong with the units of a ${scope}`, async () => {
    await using home = await directory();
    const files = unitFiles({ ...OPTIONS, scope });
    for (const { name, text } of files) await writeFile(join(home.path, name), text);
    assert.equal(await verify(home.path, scope), '');
    const daemon = join(home.path, 'stasis.service');
    await writeFile(daemon, (await readFile(daemon, 'utf8')).replace('KillMode=process', 'KillMode=some'));
    assert.match(await verify(home.path, scope), /kill mode/, 'it would have said so');
  });
}

test('guests are ended before the daemon and the storage are stopped, and have the time', () => {
  const text = new Map(unitFiles(OPTIONS).map((file) => [file.name, file.text]));
  const guests = text.get('stasis-guests.service') ?? '';
  assert.match(guests, /^After=stasis\.socket stasis\.service$/m);
  assert.match(guests, /^After=local-fs\.target remote-fs\.target/m);
  assert.match(guests, /^RequiresMountsFor=\/var\/lib\/stasis "\/srv\/virtual machines\/100%%"$/m);
  assert.match(guests, /--budget 90s --for-shutdown system$/m);
  assert.match(guests, /^TimeoutStopSec=150$/m);
  assert.match(guests, /^Environment="STASIS_QEMU=\/opt\/qemu \\"\$new\\"\/bin\/qemu"$/m);
  assert.doesNotMatch(guests, /^(Requires|BindsTo|PartOf)=/m, 'a restart of the daemon is not its own');
  assert.match(text.get('stasis.service') ?? '', /^KillMode=process$/m);
  const makesUser = /^ExecStartPre=-systemd-sysusers --inline "u stasis-qemu - /m;
  assert.match(text.get('stasis.service') ?? '', makesUser);
  const ofUser = unitFiles({ ...OPTIONS, scope: 'user' }).map((file) => file.text);
  assert.doesNotMatch(ofUser.join(''), makesUser);
  assert.throws(() => unitFiles({ ...OPTIONS, storage: ['relative'] }), { code: 'invalid-request' });
  assert.throws(() => unitFiles({ ...OPTIONS, storage: ['/a\nExecStart=/b'] }), { code: 'invalid-request' });
});

test('units are put into the root of another system, changed there, and taken away', async () => {
  await using home = await directory();
  const root = home.path;
  const options = {
    scope: 'system',
    budgetSeconds: 90,
    storage: [],
    root,
    program: '/opt/stasis/bin/stasis',
  } as const;
  const changes = async (budgetSeconds: number) => {
    const { files } = await install(await planInstallation({ ...options, budgetSeconds }, {}), doNothing);
    return files.map(({ change }) => change);
  };
  assert.deepEqual(await changes(90), ['written', 'written', 'written']);
  assert.deepEqual(await changes(90), ['unchanged', 'unchanged', 'unchanged']);
  assert.deepEqual(await changes(120), ['unchanged', 'written', 'written']);
  const units = join(root, 'etc/systemd/system');
  assert.match(
    await readFile(join(units, 'stasis.service'), 'utf8'),
    /^ExecStart=\/opt\/stasis\/bin\/stasis daemon/m,
  );
  const wanted = join(units, 'multi-user.target.wants/stasis-guests.service');
  assert.equal(await readlink(wanted), '/etc/systemd/system/stasis-guests.service');
  assert.equal((await uninstall(options, {})).files.length, 3);
  await assert.rejects(readlink(wanted), { code: 'ENOENT' });
  assert.deepEqual(await uninstall(options, {}), { files: [], commands: [] });
});

test('a program that is part of another system is called as it is called there', async () => {
  const checkout = join(import.meta.dirname, '../..');
  const planned = await planInstallation(
    { scope: 'system', budgetSeconds: 90, storage: [], root: checkout },
    {},
  );
  assert.match(planned.files[1]?.text ?? '', /^ExecStart=\/bin\/stasis daemon/m);
});

test("a user's units are of that user's home and socket", async () => {
  await using home = await directory();
  const environment = { XDG_CONFIG_HOME: home.path, STASIS_HOME: join(home.path, 'home') };
  const planned = await planInstallation({ scope: 'user', budgetSeconds: 90, storage: [] }, environment);
  const [file] = describe(planned).files;
  assert.equal(file?.path, join(home.path, 'systemd/user/stasis.socket'));
  assert.match(
    planned.files[0]?.text ?? '',
    new RegExp(`^ListenStream=${home.path}/home/run/stasis.sock$`, 'm'),
  );
  assert.match(planned.files[1]?.text ?? '', new RegExp(`^Environment=STASIS_HOME=${home.path}/home$`, 'm'));
  const elsewhere = planInstallation(
    { scope: 'user', budgetSeconds: 90, storage: [], root: home.path },
    environment,
  );
  await assert.rejects(elsewhere, { code: 'invalid-request' });
});

test('where no systemd of a user runs nothing is written, and what to do is said', async () => {
  await using home = await directory();
  await mkdir(join(home.path, 'run'));
  const environment = { XDG_CONFIG_HOME: join(home.path, 'config') };
  const planned = await planInstallation({ scope: 'user', budgetSeconds: 90, storage: [] }, environment);
  const own = process.env['XDG_RUNTIME_DIR'];
  process.env['XDG_RUNTIME_DIR'] = join(home.path, 'run');
  try {
    await assert.rejects(install(planned, doNothing), {
      code: 'unsupported',
      message: /--dry-run .* --root/,
    });
    await assert.rejects(readFile(join(home.path, 'config/systemd/user/stasis.service')), { code: 'ENOENT' });
  } finally {
    if (own === undefined) delete process.env['XDG_RUNTIME_DIR'];
    else process.env['XDG_RUNTIME_DIR'] = own;
  }
});

test('the announcement of a shutdown is told from its being called off, and from all else', () => {
  const signal = (data: unknown[], member = 'PrepareForShutdown') =>
    JSON.stringify({ type: 'signal', member, payload: { type: 'b', data } });
  assert.equal(announcesShutdown(signal([true])), true);
  assert.equal(announcesShutdown(signal([false])), false);
  assert.equal(announcesShutdown(signal([true], 'PrepareForSleep')), false);
  for (const line of ['', 'Monitoring bus message stream.', 'null', '{"member":"PrepareForShutdown"}'])
    assert.equal(announcesShutdown(line), false);
});
