/**
 * Builds real Debian systems for tests to run as guests: of this machine's own release, from its own mirrors, with ext4,
 * systemd and the guest agent. `node scripts/build-debian-guest.ts VARIANT…` makes .cache/debian-guest/VARIANT/{disk.raw,
 * vmlinuz,initrd.gz}. No right of root is needed, no device and no mount. A variant whose sources are those of the last build is
 * left as it is.
 *
 * What a system is made of stands in debian-guest/, what all have in `base`, the rest in a folder of the variant's name:
 * `packages`, one a line; `files/`, copied over the root; `units`, lines of `enable` or `mask` and names of systemd units;
 * `preferences` of apt, for a variant that takes something from the release's backports.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import {
  access,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { createGzip } from 'node:zlib';

const run = promisify(execFile);

const ROOT = join(import.meta.dirname, '..');
const SOURCES = join(ROOT, 'debian-guest');
const OUT = join(ROOT, '.cache/debian-guest');
const PRODUCTS = ['disk.raw', 'vmlinuz', 'initrd.gz'] as const;

/** Sparse: what it really occupies is what is in it. */
const DISK_BYTES = 2 * 1024 ** 3;
const KERNEL = 'linux-image-cloud-amd64';
/** What the root file system is reached by. */
const MODULES = ['virtio_pci', 'virtio_blk', 'ext4'];
const UNREAD = ['/usr/share/doc/*', '/usr/share/man/*', '/usr/share/locale/*', '/usr/share/info/*'];

/** The exit status EX_TEMPFAIL: scripts/setup then brings apt's lists up to date and tries once more. */
const OLD_LISTS = 75;

for (const variant of process.argv.slice(2)) await ensure(variant);

async function ensure(variant: string): Promise<void> {
  const stamp = await stampOf(variant);
  const out = join(OUT, variant);
  if ((await readFile(join(out, 'stamp'), 'utf8').catch(() => '')) === stamp) return;
  process.stdout.write(`Building a Debian guest (${variant}, about a minute) …\n`);
  await using work = await workDirectory();
  await build(variant, work.path);
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  for (const file of PRODUCTS) await move(join(work.path, file), join(out, file));
  await writeFile(join(out, 'stamp'), stamp);
}

async function build(variant: string, work: string): Promise<void> {
  const tree = join(work, 'root');
  await bootstrap(variant, work);
  await mkdir(tree);
  // Who owns what in the tree is known to fakeroot alone, from one call to the next by this file.
  const owners = join(work, 'owners');
  await run('fakeroot', ['-s', owners, '--', 'tar', '-xf', join(work, 'root.tar'), '-C', tree]);
  const [release = ''] = await readdir(join(tree, 'lib/modules'));
  await copyFile(join(tree, `boot/vmlinuz-${release}`), join(work, 'vmlinuz'));
  await makeInitramfs(join(tree, 'lib/modules', release), work);
  await using disk = await open(join(work, 'disk.raw'), 'w');
  await disk.truncate(DISK_BYTES);
  // Without `lazy_itable_init` the guest's kernel would go on making the file system while it runs.
  const options = ['-q', '-L', 'root', '-E', 'lazy_itable_init=0,lazy_journal_init=0', '-d', tree];
  await run('fakeroot', ['-i', owners, '--', 'mkfs.ext4', ...options, join(work, 'disk.raw')]);
}

/** A whole system, installed as Debian installs it, as root.tar. */
async function bootstrap(variant: string, work: string): Promise<void> {
  const preferences = join(SOURCES, variant, 'preferences');
  const hasPreferences = await exists(preferences);
  const { suite, sources } = await mirrors(
    hasPreferences ? ['updates', 'security', 'backports'] : ['updates', 'security'],
  );
  const parts = [join(SOURCES, 'base'), join(SOURCES, variant)];
  const packages = (await Promise.all(parts.map((part) => linesOf(join(part, 'packages'))))).flat();
  const aptOptions = join(work, 'apt.conf');
  await writeFile(
    aptOptions,
    await output('apt-config', ['dump', '--no-empty', 'Acquire::http', 'Acquire::https']),
  );
  await writeFile(join(work, 'sources.list'), sources);
  const hooks = (await Promise.all(parts.map((part) => hooksOf(part, work)))).flat();
  await run(
    'mmdebstrap',
    [
      ...['--quiet', '--variant=essential', '--format=tar', `--include=${[KERNEL, ...packages].join(',')}`],
      ...[`--aptopt=${aptOptions}`, '--dpkgopt=force-unsafe-io'],
      ...UNREAD.map((path) => `--dpkgopt=path-exclude=${path}`),
      ...(hasPreferences ? [`--setup-hook=copy-in ${preferences} /etc/apt/preferences.d`] : []),
      ...hooks.map((hook) => `--customize-hook=${hook}`),
      ...[suite, join(work, 'root.tar'), join(work, 'sources.list')],
    ],
    // The guest has an initramfs of our own: Debian's would take longer to build than everything else.
    { env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, INITRD: 'No' } },
  );
}

/** What mmdebstrap does last in the new system: `tar-in` is its own, the rest are commands of a shell. */
async function hooksOf(part: string, work: string): Promise<string[]> {
  const files = join(work, `${basename(part)}-files.tar`);
  // All is root's, whoever has the sources here.
  await run('tar', [
    '--owner=0',
    '--group=0',
    '--mode=u=rwX,go=rX',
    '-cf',
    files,
    '-C',
    join(part, 'files'),
    '.',
  ]);
  const units = await linesOf(join(part, 'units')).catch(() => []);
  return [`tar-in ${files} /`, ...units.map((line) => `chroot "$1" systemctl --quiet ${line}`)];
}

/** This machine's release and where it gets it from. @param additions to the release, such as `updates`, where apt knows them */
async function mirrors(additions: readonly string[]): Promise<{ suite: string; sources: string }> {
  const [, suite = ''] = /^VERSION_CODENAME=(.+)$/m.exec(await readFile('/etc/os-release', 'utf8')) ?? [];
  const format = '$(CODENAME)|deb $(REPO_URI) $(RELEASE) main';
  const targets = ['Identifier: Packages', 'Component: main'];
  const list = await output('apt-get', ['indextargets', '--format', format, ...targets]);
  const wanted = new Set([suite, ...additions.map((addition) => `${suite}-${addition}`)]);
  const lines = list.split('\n').flatMap((line) => {
    const [codename = '', source = ''] = line.split('|');
    return wanted.has(codename) ? [source] : [];
  });
  if (lines.length === 0) {
    process.stderr.write(`build-debian-guest: apt knows no source of ${suite}.\n`);
    process.exit(OLD_LISTS);
  }
  return { suite, sources: `${[...new Set(lines)].join('\n')}\n` };
}

/** boot.c and the modules it loads, as an archive that the kernel unpacks. @param modules of the kernel that it is for */
async function makeInitramfs(modules: string, work: string): Promise<void> {
  const tree = join(work, 'initramfs');
  for (const directory of ['dev', 'root', 'modules']) await mkdir(join(tree, directory), { recursive: true });
  const needed = await withDependencies(MODULES, modules);
  for (const { name, path } of needed) await unpackModule(path, join(tree, 'modules', `${name}.ko`));
  await writeFile(join(tree, 'modules/order'), needed.map(({ name }) => `${name}\n`).join(''));
  const init = join(tree, 'init');
  await run('gcc', ['-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', init, join(SOURCES, 'boot.c')]);
  await archive(tree, join(work, 'initrd.gz'));
}

interface Module {
  readonly name: string;
  readonly path: string;
}

/**
 * Each module after those it needs; none that is built into the kernel. After modules.dep(5): a module, a colon, what it
 * needs, the first of it last.
 */
async function withDependencies(names: readonly string[], modules: string): Promise<Module[]> {
  const builtin = new Set((await linesOf(join(modules, 'modules.builtin'))).map(moduleName));
  const known = (await linesOf(join(modules, 'modules.dep'))).map((line) => {
    const [path = '', needed = ''] = line.split(':');
    return { path, needed: needed.split(' ').filter(Boolean).toReversed() };
  });
  const paths = names.flatMap((name) => {
    if (builtin.has(name)) return [];
    const module = known.find(({ path }) => moduleName(path) === name);
    if (module === undefined) throw new Error(`the kernel has no module ${name}`);
    return [...module.needed, module.path];
  });
  return [...new Set(paths)].map((path) => ({ name: moduleName(path), path: join(modules, path) }));
}

function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/** Debian 12 has modules as they are, later releases have them compressed. */
async function unpackModule(from: string, to: string): Promise<void> {
  if (!from.endsWith('.xz')) return copyFile(from, to);
  const unpacked = await run('xz', ['-dc', from], { encoding: 'buffer', maxBuffer: 64 * 1024 ** 2 });
  await writeFile(to, unpacked.stdout);
}

async function archive(directory: string, path: string): Promise<void> {
  const names = (await readdir(directory, { recursive: true })).toSorted();
  const cpio = execFile('cpio', ['--quiet', '-o', '-H', 'newc', '-R', '0:0'], {
    cwd: directory,
    encoding: 'buffer',
    maxBuffer: 64 * 1024 ** 2,
  });
  if (!cpio.stdin || !cpio.stdout) throw new Error('no pipe');
  cpio.stdin.end(names.join('\n'));
  await pipeline(cpio.stdout, createGzip(), createWriteStream(path));
}

/** Changes with everything that the variant is made of. */
async function stampOf(variant: string): Promise<string> {
  const hash = createHash('sha256');
  const own = ['base', variant].map((part) => join(SOURCES, part));
  const listings = await Promise.all(
    own.map((part) => readdir(part, { recursive: true, withFileTypes: true })),
  );
  const files = listings
    .flat()
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  for (const path of [import.meta.filename, join(SOURCES, 'boot.c'), ...files.toSorted()]) {
    hash.update(`${path.slice(ROOT.length)}\n`);
    hash.update(await readFile(path));
  }
  return hash.digest('hex');
}

/** Lines that say something: no empty one, no comment. */
async function linesOf(path: string): Promise<string[]> {
  return (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

async function output(command: string, args: readonly string[]): Promise<string> {
  return (await run(command, args)).stdout;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** The directory for temporary files may be another file system; holes stay holes. */
async function move(from: string, to: string): Promise<void> {
  await run('cp', ['--sparse=always', from, `${to}.new`]);
  await rename(`${to}.new`, to);
}

async function workDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'stasis-debian-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
