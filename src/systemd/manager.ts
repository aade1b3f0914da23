/** A running systemd, the system's or a user's own, asked and told through systemctl(1). */
import { execFile } from 'node:child_process';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError, errnoOf, messageOf } from '../errors.ts';

export type Scope = 'system' | 'user';

interface Said {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** sd_booted(3), and the same of a user's systemd. */
export async function isManagerRunning(
  scope: Scope,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<boolean> {
  const runtime = scope === 'system' ? '/run' : environment['XDG_RUNTIME_DIR'];
  if (!runtime) return false;
  return access(join(runtime, scope === 'system' ? 'systemd/system' : 'systemd/private')).then(
    () => true,
    () => false,
  );
}

/** Whether all is being stopped: the host goes down, or with a user's systemd that does. */
export async function isStopping(scope: Scope): Promise<boolean> {
  const { stdout } = await ask(managerArgs(scope, ['is-system-running'])); // its status is 0 only for `running`
  return stdout.trim() === 'stopping';
}

/** @returns the process id of a service's main process; undefined when it does not run */
export async function mainPid(scope: Scope, unit: string): Promise<number | undefined> {
  const { stdout } = await ask(managerArgs(scope, ['show', '--property=MainPID', '--value', unit]));
  return Number(stdout) || undefined;
}

/** Words of a systemctl command for the running systemd. */
export function managerArgs(scope: Scope, args: readonly string[]): string[] {
  return [...(scope === 'user' ? ['--user'] : []), ...args];
}

/** @throws StasisError `unsupported` without a systemctl, `internal` with what it said when it fails */
export async function systemctl(args: readonly string[]): Promise<void> {
  const { status, stderr } = await ask(args);
  if (status === 0) return;
  throw new StasisError(
    'internal',
    `systemctl ${args.join(' ')} failed: ${stderr.trim() || `status ${status}`}`,
  );
}

function ask(args: readonly string[]): Promise<Said> {
  return new Promise((resolve, reject) => {
    execFile('systemctl', ['--no-pager', ...args], (error, stdout, stderr) => {
      const status = error === null ? 0 : Number(error.code);
      if (Number.isInteger(status)) resolve({ status, stdout, stderr });
      else if (errnoOf(error) === 'ENOENT')
        reject(new StasisError('unsupported', 'systemctl is not installed here: there is no systemd'));
      else reject(new StasisError('internal', `systemctl ${args.join(' ')}: ${messageOf(error)}`));
    });
  });
}
