/** What every command begins with: the options that hold for all of them, and a client for the daemon they mean. */
import type { Command } from 'commander';
import { chosenEndpoint, sessionEndpoint, type Endpoint } from '../client/connect.ts';
import { StasisClient } from '../client/stasis-client.ts';
import { sessionPaths } from '../paths.ts';
import { Output } from './output.ts';
import { ensureSessionDaemon } from './session-daemon.ts';

export interface GlobalOptions {
  readonly json?: true;
  readonly connect?: string;
  readonly color: boolean;
}

export interface Session {
  readonly client: StasisClient;
  readonly output: Output;
}

/**
 * A client for the daemon that the command line names, or for the user's own, which is started if need be and
 * started again should it die while an operation runs.
 *
 * @throws `invalid-request` for an address that is none; `daemon-unreachable`
 */
export async function openSession(command: Command): Promise<Session> {
  const { json = false, connect } = command.optsWithGlobals<GlobalOptions>();
  const output = new Output(json);
  const chosen = chosenEndpoint(connect);
  if (chosen !== undefined) return { client: new StasisClient({ connect: await complete(chosen) }), output };
  await startSessionDaemon();
  return { client: new StasisClient({ connect: sessionEndpoint(), revive: startSessionDaemon }), output };
}

/** An address of another machine, with what this user has for it. Only then is it looked for. */
async function complete(endpoint: Endpoint): Promise<Endpoint> {
  if (endpoint.kind === 'unix') return endpoint;
  const { withKnown } = await import('./remotes.ts');
  return withKnown(endpoint);
}

function startSessionDaemon(signal?: AbortSignal): Promise<void> {
  return ensureSessionDaemon(sessionPaths(), signal);
}

/** A client for a daemon that already runs, if there is one: for what must never start one. */
export function clientWithoutStarting(connect: string | undefined): StasisClient {
  return new StasisClient({ connect: chosenEndpoint(connect) ?? sessionEndpoint() });
}
