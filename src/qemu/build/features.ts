/** What of the things that came late a QEMU offers. It is asked: distributions leave things out and bring others back. */
import type { QemuBinary } from './binary.ts';
import { askedOnce, probeQemu } from './probe.ts';
import type { SchemaEntity } from '../qmp/results.ts';
import { qmpErrorDescription, type QmpClient } from '../qmp/client.ts';

export type Feature =
  | 'mapped-ram'
  | 'multifd'
  | 'direct-io'
  | 'exit-on-error'
  | 'memory-file-offset'
  | 'background-snapshot'
  | 'postcopy-ram';

/** Asked once per build of QEMU. @throws StasisError `qemu-failed`, `timeout` */
export const featuresOf = askedOnce((binary) => probeQemu(binary, featuresOver));

/** @throws StasisError `qemu-failed`, `guest-crashed` */
export async function featuresOver(qmp: QmpClient): Promise<ReadonlySet<Feature>> {
  const capabilities = (await qmp.execute('query-migrate-capabilities')).map(({ capability }) => capability);
  const parameters = await qmp.execute('query-migrate-parameters');
  const loading = argumentsOf(await qmp.execute('query-qmp-schema'), 'migrate-incoming');
  const memoryFile = (await qmp.execute('qom-list-properties', { typename: 'memory-backend-file' })).map(
    ({ name }) => name,
  );
  const offered: Record<Feature, boolean> = {
    'mapped-ram': capabilities.includes('mapped-ram'),
    multifd: capabilities.includes('multifd'),
    'direct-io': parameters['direct-io'] !== undefined,
    'exit-on-error': loading.includes('exit-on-error'),
    'memory-file-offset': memoryFile.includes('offset') && memoryFile.includes('rom'),
    'background-snapshot': capabilities.includes('background-snapshot'),
    'postcopy-ram': capabilities.includes('postcopy-ram'),
  };
  return new Set(FEATURES.filter((feature) => offered[feature]));
}

const FEATURES = [
  'mapped-ram',
  'multifd',
  'direct-io',
  'exit-on-error',
  'memory-file-offset',
  'background-snapshot',
  'postcopy-ram',
] as const satisfies readonly Feature[];

/** Names of a command's arguments, from QEMU's description of itself. */
function argumentsOf(schema: readonly SchemaEntity[], command: string): readonly string[] {
  const find = (wanted: string | undefined) => schema.find(({ name }) => name === wanted);
  return find(find(command)?.['arg-type'])?.members?.flatMap(({ name = [] }) => name) ?? [];
}

/** The capabilities that need to be told of a guest's page faults by the kernel: userfaultfd(2). */
export type FaultCapability = 'background-snapshot' | 'postcopy-ram';

/**
 * Whether QEMU, as this user and on this kernel, may be told of a guest's page faults: it tries that itself when the
 * capability is turned on; `postcopy-ram` only in a QEMU that is to load something.
 * @returns for each capability why not, in QEMU's words, or undefined when it is allowed
 * @throws StasisError `qemu-failed`, `timeout`
 */
export async function proveFaults(
  binary: QemuBinary,
): Promise<Readonly<Record<FaultCapability, string | undefined>>> {
  return probeQemu(
    binary,
    async (qmp) => ({
      'background-snapshot': await whyNot(qmp, 'background-snapshot'),
      'postcopy-ram': await whyNot(qmp, 'postcopy-ram'),
    }),
    ['-incoming', 'defer'],
  );
}

/** Turned off again at once: the two exclude each other. */
async function whyNot(qmp: QmpClient, capability: FaultCapability): Promise<string | undefined> {
  try {
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability, state: true }] });
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability, state: false }] });
    return undefined;
  } catch (error) {
    const reason = qmpErrorDescription(error);
    if (reason === undefined) throw error;
    return reason;
  }
}
