/** The way to a guest's own agent: through the channel that its definition gave it. */
import { join } from 'node:path';
import { StasisError } from '../errors.ts';
import { GuestAgent } from '../qemu/guest-agent.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import type { QmpClient } from '../qemu/qmp/client.ts';
import { AGENT_CHARDEV, AGENT_SOCKET } from './command-line.ts';

/** All that is asked of a guest's agent has to be answered in this time: who restores or resumes the guest is waiting. */
export const AGENT_BUDGET_MS = 8_000;
/** After a restore QEMU knows whether the guest has the channel open only when the guest has run for a moment. */
const OPEN_TIMEOUT_MS = 500;

/**
 * Begins a conversation with the agent in a guest that runs and has a channel for it.
 * @param budgetMs how long this and all that is asked later may take together
 * @throws StasisError `timeout`, after 0.5 s when no program in the guest has the channel open, after 3 s when one has and
 *   doesn't answer; `qemu-failed`, `guest-crashed`
 */
export async function contactAgent(
  { qmp, runDirectory }: QemuProcess,
  options: { readonly budgetMs: number },
): Promise<GuestAgent> {
  if (!(await isChannelOpen(qmp)))
    throw new StasisError(
      'timeout',
      'no agent in the guest has opened its channel: qemu-guest-agent does not run there',
    );
  return GuestAgent.connect(join(runDirectory, AGENT_SOCKET), options);
}

async function isChannelOpen(qmp: QmpClient): Promise<boolean> {
  using changes = qmp.watch('VSERPORT_CHANGE');
  const isOpen = async () =>
    (await qmp.execute('query-chardev')).some(
      (chardev) => chardev.label === AGENT_CHARDEV && chardev['frontend-open'],
    );
  if (await isOpen()) return true;
  try {
    await changes.next(({ data }) => data.open, { timeoutMs: OPEN_TIMEOUT_MS });
  } catch (error) {
    if (!(error instanceof StasisError && error.code === 'timeout')) throw error;
  }
  return isOpen();
}
