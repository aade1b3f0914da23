/**
 * What this user needs to talk to daemons on other machines: whom to believe, and with what to be let in. One file, for its
 * owner alone. `STASIS_TOKEN` and `STASIS_AUTHORITY` (a file) are for scripts that keep nothing.
 */
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Endpoint } from '../client/connect.ts';
import { errnoOf, StasisError } from '../errors.ts';
import { sessionPaths } from '../paths.ts';

export type HttpsEndpoint = Extract<Endpoint, { kind: 'https' }>;
type Remote = Pick<HttpsEndpoint, 'authority' | 'token' | 'identity'>;

/** An address with what is known for it. */
export async function withKnown(
  endpoint: HttpsEndpoint,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<HttpsEndpoint> {
  const known = (await readRemotes())[endpoint.url.origin] ?? {};
  const { STASIS_TOKEN: token, STASIS_AUTHORITY: file } = environment;
  return {
    ...endpoint,
    ...known,
    ...(token === undefined || token === '' ? {} : { token }),
    ...(file === undefined || file === '' ? {} : { authority: await readFile(file, 'utf8') }),
  };
}

/** @param remote undefined: forget it */
export async function keepRemote(origin: string, remote: Remote | undefined): Promise<void> {
  const { [origin]: _before, ...others } = await readRemotes();
  const path = remotesFile();
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const text = JSON.stringify(remote === undefined ? others : { ...others, [origin]: remote }, null, 2);
  await writeFile(`${path}.new`, `${text}\n`, { mode: 0o600 });
  await chmod(`${path}.new`, 0o600);
  await rename(`${path}.new`, path);
}

async function readRemotes(): Promise<Record<string, Remote>> {
  try {
    return remotesIn(await readFile(remotesFile(), 'utf8'), remotesFile());
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return {};
    throw error;
  }
}

/** @throws StasisError `invalid-request` for a file that somebody has broken */
export function remotesIn(text: string, path: string): Record<string, Remote> {
  try {
    const remotes: Record<string, Remote> | null = JSON.parse(text);
    if ([remotes, ...Object.values(remotes ?? {})].every((part) => typeof part === 'object' && part !== null))
      return { ...remotes };
  } catch {
    // said below
  }
  throw new StasisError('invalid-request', `${path} can't be read: remove it, and log in again`);
}

function remotesFile(): string {
  return join(sessionPaths().config, 'remotes.json');
}
