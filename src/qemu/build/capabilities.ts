import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../errors.ts';
import type { MigrationCapability, MigrationParameters } from '../qmp/commands.ts';
import type { QmpClient } from '../qmp/client.ts';

/** Every capability that Stasis ever turns on. */
const OURS = [
  'mapped-ram',
  'multifd',
  'pause-before-switchover',
  'events',
  'x-ignore-shared',
  'background-snapshot',
  'postcopy-ram',
  'postcopy-preempt',
] as const satisfies readonly MigrationCapability[];

/** QEMU's own defaults, which another client of the same QEMU may count on. */
const DEFAULT_PARAMETERS = {
  'max-bandwidth': 128 << 20,
  'downtime-limit': 300,
  'multifd-channels': 2,
  'avail-switchover-bandwidth': 0,
} as const satisfies MigrationParameters;

const CLEANUP_TIMEOUT_MS = 60_000;

/**
 * Turns exactly these migration capabilities on, all other ones of ours off, and sets the parameters. The one place
 * where either is set. A capability left on would poison a later save: with background-snapshot it would be silently
 * inconsistent, multifd with mapped-ram crashes an internal snapshot. Hence the pair: whoever calls this calls
 * `resetMigration` when the migration has ended, however it ended.
 *
 * @throws StasisError `qemu-failed`, for instance when QEMU doesn't know a capability (mapped-ram: since 9.0)
 */
export async function prepareMigration(
  qmp: QmpClient,
  capabilities: readonly MigrationCapability[],
  parameters: MigrationParameters,
): Promise<void> {
  await setCapabilities(qmp, new Set(capabilities));
  await setParameters(qmp, parameters);
}

/**
 * Puts capabilities and parameters back to QEMU's defaults, when QEMU has closed the last migration's file. No migration
 * may be going on. Idempotent.
 */
export async function resetMigration(qmp: QmpClient): Promise<void> {
  await setCapabilities(qmp, new Set());
  await setParameters(qmp, DEFAULT_PARAMETERS);
}

/** Sends only what differs: QEMU refuses some settings of capabilities that it can't serve, even to turn them off. */
async function setCapabilities(qmp: QmpClient, wanted: ReadonlySet<string>): Promise<void> {
  await cleanedUp(qmp);
  const current = new Map(
    (await qmp.execute('query-migrate-capabilities')).map(({ capability, state }) => [capability, state]),
  );
  const capabilities = OURS.filter((name) => (current.get(name) ?? false) !== wanted.has(name)).map(
    (capability) => ({ capability, state: wanted.has(capability) }),
  );
  if (capabilities.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities });
}

/** `direct-io` is off unless asked for, and not mentioned to a QEMU that doesn't know it (before 9.1). */
async function setParameters(qmp: QmpClient, parameters: MigrationParameters): Promise<void> {
  const known = await qmp.execute('query-migrate-parameters');
  const { 'direct-io': directIo = false, ...others } = parameters;
  await qmp.execute('migrate-set-parameters', {
    ...others,
    ...(known['direct-io'] === undefined ? {} : { 'direct-io': directIo }),
  });
}

/**
 * Waits until QEMU has cleaned up after a migration, which it does some time *after* it has announced the end. Capabilities
 * may be set from the announcement on, but mustn't: the clean-up looks at them. With multifd turned off too early it
 * leaves its channels behind, and the next migration aborts QEMU, and with it the guest ("Assertion
 * `!multifd_send_device_state' failed", 10.0.2). That it is done shows only in `query-yank`, where a migration is
 * listed until the last line of its clean-up.
 */
async function cleanedUp(qmp: QmpClient): Promise<void> {
  const giveUp = performance.now() + CLEANUP_TIMEOUT_MS;
  while ((await qmp.execute('query-yank')).some(({ type }) => type === 'migration')) {
    if (performance.now() > giveUp)
      throw new StasisError('timeout', 'QEMU does not clean up after a migration');
    await delay(1);
  }
}
