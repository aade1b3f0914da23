/**
 * Where everything is. `STASIS_HOME` moves all of it under one directory; without it a user's session daemon
 * follows the XDG base directories and a system daemon the usual places of the file hierarchy.
 */
import { homedir, tmpdir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';

export interface Paths {
  /** images, layers and the catalog: what must survive a reboot */
  readonly data: string;
  /** sockets and process directories: what ends with the boot */
  readonly run: string;
  /** what can be made again */
  readonly cache: string;
  readonly config: string;
  readonly socket: string;
  readonly log: string;
}

function under(data: string, run: string, cache: string, config: string): Paths {
  return { data, run, cache, config, socket: join(run, 'stasis.sock'), log: join(run, 'daemon.log') };
}

/** @param environment `STASIS_HOME` and the XDG variables are read from here */
export function sessionPaths(environment: NodeJS.ProcessEnv = process.env): Paths {
  const home = environment['STASIS_HOME'];
  if (home !== undefined && home !== '') {
    const root = resolve(home);
    return under(join(root, 'state'), join(root, 'run'), join(root, 'cache'), join(root, 'config'));
  }
  const xdg = (name: string, fallback: string) =>
    join(environment[name] || join(homedir(), fallback), 'stasis');
  const runtime = environment['XDG_RUNTIME_DIR'];
  return under(
    xdg('XDG_STATE_HOME', '.local/state'),
    runtime ? join(runtime, 'stasis') : join(tmpdir(), `stasis-${userInfo().uid}`),
    xdg('XDG_CACHE_HOME', '.cache'),
    xdg('XDG_CONFIG_HOME', '.config'),
  );
}

export function systemPaths(): Paths {
  return under('/var/lib/stasis', '/run/stasis', '/var/cache/stasis', '/etc/stasis');
}

export function catalogFile({ data }: Pick<Paths, 'data'>): string {
  return join(data, 'catalog.sqlite');
}
