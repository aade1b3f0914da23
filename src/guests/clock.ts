/** The clock of a guest's system. It stands still while the guest is saved or paused, unlike its hardware clock. */
import type { Outcome } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import type { GuestAgent } from '../qemu/guest-agent.ts';
import type { QmpClient } from '../qemu/qmp/client.ts';

/** A clock that far off is right. */
const TOLERANCE_MS = 1_000;

/** An outcome before it has a name. */
export type Finding = Omit<Outcome, 'name'>;

/**
 * Sets the guest's clock to the host's and looks at it again. Setting may fail in part, in a guest without a hardware
 * clock for instance; whether the clock is right, the guest says.
 * @throws StasisError as the agent's methods do
 */
export async function setClock(agent: GuestAgent, qmp: QmpClient): Promise<Finding> {
  const before = await aheadMs(agent);
  let refusal = await refusalOf(agent.setTime(Date.now()));
  // A guest that counts the ticks of its hardware clock would go past the right time with those it has missed.
  await qmp.execute('rtc-reset-reinjection');
  let after = await aheadMs(agent);
  if (Math.abs(after) > TOLERANCE_MS && refusal === undefined) {
    // On a busy host the time that is set may have passed on its way to the guest.
    refusal = await refusalOf(agent.setTime(Date.now()));
    after = await aheadMs(agent);
  }
  if (Math.abs(after) <= TOLERANCE_MS) {
    return {
      outcome: 'done',
      message: `set by the guest agent: it was ${inWords(before)} the host's and is now ${inWords(after)} it`,
    };
  }
  const reason = refusal ?? 'the guest agent set it in vain';
  return { outcome: 'failed', message: `the guest's clock is ${inWords(after)} the host's: ${reason}` };
}

/** What is true of the clock when nobody in the guest can be asked to set it. */
export function howFarBehind(savedAt: string): Finding {
  const behindSeconds = Math.round((Date.now() - Date.parse(savedAt)) / 1000);
  return {
    outcome: 'skipped',
    message: `no guest agent answers: the guest's clock is about ${behindSeconds} s behind until the guest synchronizes it (NTP) or sets it by its hardware clock, which is right (Linux: \`hwclock --hctosys\`)`,
  };
}

/** How far the guest's clock is ahead of the host's, in ms. The question takes time: its middle is what counts. */
async function aheadMs(agent: GuestAgent): Promise<number> {
  const askedAt = Date.now();
  const guestMs = await agent.getTime();
  return guestMs - (askedAt + Date.now()) / 2;
}

function inWords(differenceMs: number): string {
  return `${(Math.abs(differenceMs) / 1000).toFixed(2)} s ${differenceMs < 0 ? 'behind' : 'ahead of'}`;
}

async function refusalOf(work: Promise<void>): Promise<string | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (error instanceof StasisError && error.code === 'qemu-failed') return error.message;
    throw error;
  }
}
