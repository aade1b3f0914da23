/** Stasis as a service of systemd: host install, host uninstall. */
import { access } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { userInfo } from 'node:os';
import type { Command } from 'commander';
import { StasisClient } from '../../client/stasis-client.ts';
import { StasisError } from '../../errors.ts';
import { endProcess } from '../../qemu/process/process.ts';
import {
  describe,
  install,
  pathsOf,
  planInstallation,
  uninstall,
  type Installation,
  type Report,
} from '../../systemd/install.ts';
import { mainPid, type Scope } from '../../systemd/manager.ts';
import { DAEMON } from '../../systemd/units.ts';
import { duration } from '../arguments.ts';
import { Output } from '../output.ts';
import type { GlobalOptions } from '../session.ts';

const BUDGET_SECONDS = 90;
/** A daemon that is asked to end lets go of its guests at once. */
const GRACE_MS = 30_000;

/** @param host the command `host` */
export function addUnitCommands(host: Command): void {
  host
    .command('install')
    .summary('have systemd run the daemon, and guests saved when the host shuts down')
    .description(
      'Puts units into systemd, enables and starts them: the daemon runs from boot on, guests are started as their policies say, and at a shutdown of the host they are ended as their policies say before storage goes. Done again, it brings the units up to date. Running guests notice nothing.',
    )
    .option('--user', "for your own daemon, run by your own systemd (default: the system's)")
    .option(
      '--budget <duration>',
      'guests have ended so long after a shutdown began (default: 90s)',
      duration,
    )
    .option(
      '--storage <directory...>',
      'with disks of guests, on file systems that are mounted late or not needed for the boot',
    )
    .option(
      '--root <directory>',
      'into another system, such as an image that is being built; nothing is started',
    )
    .option('--program <path>', 'where bin/stasis is in that system')
    .option('--dry-run', 'only print the units and what would be done')
    .addHelpText(
      'after',
      '\nExamples:\n  $ sudo stasis host install --budget 2m --storage /srv/vms\n  $ stasis host install --user --dry-run\n  $ stasis host install --root /mnt/image --program /opt/stasis/bin/stasis',
    )
    .action(installUnits);
  host
    .command('uninstall')
    .summary('take the units away')
    .description('Stops the daemon and takes its units away. Guests run on; images and the catalog stay.')
    .option('--user', "those of your own systemd (default: the system's)")
    .option('--root <directory>', 'those of another system')
    .addHelpText('after', '\nExample:\n  $ sudo stasis host uninstall')
    .action(uninstallUnits);
}

interface UnitCommandOptions {
  readonly user?: true;
  readonly root?: string;
}

interface InstallCommandOptions extends UnitCommandOptions {
  readonly budget?: number;
  readonly storage?: readonly string[];
  readonly program?: string;
  readonly dryRun?: true;
}

async function installUnits(options: InstallCommandOptions, command: Command): Promise<void> {
  const output = new Output(command.optsWithGlobals<GlobalOptions>().json ?? false);
  const scope = scopeOf(options);
  const installation = await planInstallation({
    scope,
    budgetSeconds: Math.ceil(options.budget ?? BUDGET_SECONDS),
    storage: (options.storage ?? []).map((directory) => resolve(directory)),
    root: options.root,
    program: options.program,
  });
  if (options.dryRun === true) return printPlan(installation, output);
  const report = await install(installation, () => endOtherDaemon(scope, output));
  const lingers = scope === 'system' || (await doesLinger());
  output.print({ scope, ...report, lingers }, () => [
    ...renderReport(report),
    ...(lingers
      ? []
      : [`your systemd ends with your last login, and your guests with it: loginctl enable-linger`]),
  ]);
}

async function uninstallUnits(options: UnitCommandOptions, command: Command): Promise<void> {
  const output = new Output(command.optsWithGlobals<GlobalOptions>().json ?? false);
  const scope = scopeOf(options);
  const report = await uninstall({ scope, root: options.root });
  output.print({ scope, ...report }, () =>
    report.files.length === 0
      ? 'no units are there'
      : [...renderReport(report), ...(options.root === undefined ? ['guests run on'] : [])],
  );
}

function scopeOf({ user }: UnitCommandOptions): Scope {
  return user === true ? 'user' : 'system';
}

function printPlan(installation: Installation, output: Output): void {
  const { scope, directory, files } = installation;
  const report = describe(installation);
  const units = files.map(({ name, text }) => ({ path: join(directory, name), text }));
  output.print({ scope, dryRun: true, units, ...report }, () => [
    ...units.flatMap(({ path, text }) => [`==> ${path} <==`, ...text.trimEnd().split('\n'), '']),
    ...report.commands,
  ]);
}

function renderReport({ files, commands }: Report): string[] {
  return [...files.map(({ path, change }) => `${change} ${path}`), ...commands];
}

/** One that a command started, say, keeps the home to itself; its guests go on with the next daemon. */
async function endOtherDaemon(scope: Scope, output: Output): Promise<void> {
  const { socket } = pathsOf(scope);
  const pid = await pidBehind(socket);
  if (pid === undefined || pid === (await mainPid(scope, DAEMON))) return;
  await endProcess(pid, GRACE_MS);
  output.note(`ended the daemon that ran (pid ${pid}); its guests run on`);
}

async function pidBehind(socket: string): Promise<number | undefined> {
  try {
    return (await new StasisClient({ connect: `unix:${socket}` }).hostStatus()).pid;
  } catch (error) {
    if (StasisError.from(error).code === 'daemon-unreachable') return undefined;
    throw error;
  }
}

/** Whether a user's systemd starts with the host and goes on without a login (loginctl(1)). */
async function doesLinger(): Promise<boolean> {
  return access(join('/var/lib/systemd/linger', userInfo().username)).then(
    () => true,
    () => false,
  );
}
