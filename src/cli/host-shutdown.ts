/**
 * What systemd runs when it stops the unit of the guests (src/systemd/units.ts): a shutdown of the host ends the guests, a restart
 * or an upgrade of that unit does nothing to them.
 */
import type { HostStatus, Operation } from '../api/schemas.ts';
import type { StasisClient } from '../client/stasis-client.ts';
import { StasisError } from '../errors.ts';
import { isStopping, type Scope } from '../systemd/manager.ts';
import { pathsOf } from '../systemd/install.ts';
import { takeService } from '../systemd/service.ts';
import type { Output } from './output.ts';
import { startDaemonOf } from './session-daemon.ts';

/** @throws as `saveAll` of the client, after all guests have ended one way or another */
export async function endGuestsForShutdown(
  client: StasisClient,
  output: Output,
  { scope, budgetSeconds }: { readonly scope: Scope; readonly budgetSeconds: number | undefined },
): Promise<void> {
  if (!(await isStopping(scope))) {
    output.lines('the host is not shutting down: guests run on');
    return;
  }
  const service = takeService(process.env, (message) => output.note(message));
  using stack = new DisposableStack();
  stack.use(service.takeTime());
  const onProgress = ({ phase, outcomes }: Operation) =>
    service.status(`${phase}: ${outcomes.length} guests have ended`);
  const status = await statusOf(client, scope);
  const underWay = (await client.listOperations()).find(
    ({ kind, state }) => kind === 'save-all' && state === 'running',
  );
  if (underWay !== undefined) await client.followOperation(underWay.id, { onProgress });
  else if (!haveEnded(status)) await client.saveAll({ budgetSeconds }, { onProgress });
  output.lines('guests have ended for the shutdown of the host');
}

/** A daemon that has been stopped, or can't be started by systemd any more, is started for this. */
async function statusOf(client: StasisClient, scope: Scope): Promise<HostStatus> {
  try {
    return await client.hostStatus();
  } catch (error) {
    if (StasisError.from(error).code !== 'daemon-unreachable') throw error;
    await startDaemonOf(pathsOf(scope), scope === 'system' ? ['--system'] : []);
    return client.hostStatus();
  }
}

/** logind's announcement came first, and all is done. */
function haveEnded({ boot, shutdown, guests }: HostStatus): boolean {
  return shutdown !== null && shutdown.at > boot.seenAt && guests.running === 0;
}
