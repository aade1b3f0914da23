/**
 * Puts the units in place and starts them, or takes them away. Guests notice neither. Each step may be done again: what is
 * there already stays.
 */
import { mkdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { StasisError, errnoOf } from '../errors.ts';
import { LAUNCHER } from '../installation.ts';
import { sessionPaths, systemPaths, type Paths } from '../paths.ts';
import { isManagerRunning, managerArgs, systemctl, type Scope } from './manager.ts';
import { DAEMON, GUESTS, SOCKET, UNITS, unitFiles, type UnitFile } from './units.ts';

export interface InstallOptions {
  readonly scope: Scope;
  readonly budgetSeconds: number;
  /** directories with disks of guests, beside the daemon's own */
  readonly storage: readonly string[];
  /** of another system, such as an image that is being built: nothing is started */
  readonly root?: string | undefined;
  /** absolute path of `bin/stasis` in that system; default: our own */
  readonly program?: string | undefined;
}

export interface Installation {
  readonly scope: Scope;
  readonly root: string | undefined;
  /** where the files are written, `root` included */
  readonly directory: string;
  readonly files: readonly UnitFile[];
}

/** What was done, or would be. */
export interface Report {
  readonly files: readonly { readonly path: string; readonly change: 'written' | 'removed' | 'unchanged' }[];
  /** as a person would type them */
  readonly commands: readonly string[];
}

/** @throws StasisError `invalid-request` */
export async function planInstallation(
  options: InstallOptions,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Installation> {
  const { scope, budgetSeconds, storage } = options;
  const root = options.root === undefined ? undefined : resolve(options.root);
  if (root !== undefined && scope === 'user')
    throw new StasisError('invalid-request', '--root is for the units of a system, not for those of a user');
  const paths = pathsOf(scope, environment);
  const files = unitFiles({
    scope,
    program: options.program ?? (await ownProgram(root)),
    socket: paths.socket,
    storage: [paths.data, ...storage],
    budgetSeconds,
    environment: passedOn(scope, environment),
  });
  return { scope, root, directory: join(root ?? '/', unitDirectory(scope, environment)), files };
}

/** The home that the daemon of these units has. */
export function pathsOf(scope: Scope, environment: NodeJS.ProcessEnv = process.env): Paths {
  return scope === 'system' ? systemPaths() : sessionPaths(environment);
}

/**
 * @param endOtherDaemon ends a daemon of this home that somebody else started; called before the units are
 * @throws StasisError `unsupported` where no systemd runs, `unauthorized` without root's rights; `internal` with what systemctl said
 */
export async function install(
  installation: Installation,
  endOtherDaemon: () => Promise<void>,
): Promise<Report> {
  const { scope, root } = installation;
  await requireManager(installation);
  const files = [];
  for (const file of installation.files)
    files.push(await write(join(installation.directory, file.name), file.text));
  const isChanged = files.some(({ change }) => change === 'written');
  if (root !== undefined) return { files, commands: await run([['--root', root, 'enable', ...UNITS]]) };
  await endOtherDaemon();
  const commands = await run(startCommands(scope, isChanged));
  return { files, commands };
}

/** What `install` would do where nothing is yet. */
export function describe({ scope, root, directory, files }: Installation): Report {
  const commands = root === undefined ? startCommands(scope, true) : [['--root', root, 'enable', ...UNITS]];
  return {
    files: files.map(({ name }) => ({ path: join(directory, name), change: 'written' })),
    commands: commands.map(typed),
  };
}

/** Stops the daemon, not the guests, and takes the units away. @throws as `install` */
export async function uninstall(
  target: Pick<InstallOptions, 'scope' | 'root'>,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Report> {
  const { scope } = target;
  const root = target.root === undefined ? undefined : resolve(target.root);
  await requireManager({ scope, root });
  const directory = join(root ?? '/', unitDirectory(scope, environment));
  const present = [];
  for (const name of UNITS) if ((await contents(join(directory, name))) !== undefined) present.push(name);
  const commands: string[] = [];
  if (present.length > 0) {
    const disable =
      root === undefined ? managerArgs(scope, ['disable', '--now']) : ['--root', root, 'disable'];
    commands.push(...(await run([[...disable, ...present]])));
  }
  const files = present.map((name) => ({ path: join(directory, name), change: 'removed' as const }));
  for (const { path } of files) await rm(path, { force: true });
  if (present.length > 0 && root === undefined)
    commands.push(...(await run([managerArgs(scope, ['daemon-reload'])])));
  return { files, commands };
}

/** Changed units hold for a daemon that runs once it is started again; guests run on meanwhile, and who asks waits. */
function startCommands(scope: Scope, isChanged: boolean): string[][] {
  const commands = isChanged
    ? [['daemon-reload'], ['enable', ...UNITS], ['restart', SOCKET, DAEMON], ['start', GUESTS]]
    : [
        ['enable', ...UNITS],
        ['start', ...UNITS],
      ];
  return commands.map((args) => managerArgs(scope, args));
}

async function run(commands: readonly (readonly string[])[]): Promise<string[]> {
  for (const args of commands) await systemctl(args);
  return commands.map(typed);
}

function typed(args: readonly string[]): string {
  return ['systemctl', ...args].join(' ');
}

async function requireManager({ scope, root }: Pick<Installation, 'scope' | 'root'>): Promise<void> {
  if (root !== undefined) return;
  if (!(await isManagerRunning(scope))) {
    const [whose, instead] =
      scope === 'system'
        ? ['systemd does not run here', 'have `stasis daemon --system` started by what starts services here']
        : ['no systemd of yours runs here', 'log in by a way that starts one, or install for the system'];
    throw new StasisError(
      'unsupported',
      `${whose}: ${instead}. --dry-run prints the units, --root DIR puts them into another system.`,
    );
  }
  if (scope === 'system' && process.geteuid?.() !== 0)
    throw new StasisError('unauthorized', "units of the system are root's: use sudo, or --user for your own");
}

async function write(path: string, text: string): Promise<Report['files'][number]> {
  if ((await contents(path)) === text) return { path, change: 'unchanged' };
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}.new`, text, { mode: 0o644 });
  await rename(`${path}.new`, path);
  return { path, change: 'written' };
}

async function contents(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function unitDirectory(scope: Scope, environment: NodeJS.ProcessEnv): string {
  if (scope === 'system') return '/etc/systemd/system';
  return join(environment['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'systemd/user');
}

/** What was chosen for this command holds for the daemon too; the system's daemon has its home where it has it. */
function passedOn(scope: Scope, environment: NodeJS.ProcessEnv): Record<string, string> {
  const home = environment['STASIS_HOME'];
  const qemu = environment['STASIS_QEMU'];
  return {
    ...(scope === 'user' && home ? { STASIS_HOME: resolve(home) } : {}),
    ...(qemu ? { STASIS_QEMU: resolve(qemu) } : {}),
  };
}

/** The path of `bin/stasis`, as it is called inside another system when it is part of that. */
async function ownProgram(root: string | undefined): Promise<string> {
  const program = await realpath(LAUNCHER);
  if (root === undefined) return program;
  const inside = relative(await realpath(root), program);
  return inside.startsWith('..') ? program : `/${inside}`;
}
