import { StasisError } from '../../errors.ts';
import type { QemuBinary } from '../build/binary.ts';
import { prepareMigration } from '../build/capabilities.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import { stayOnError, waitForMigration } from '../migration.ts';
import { PAGE_BYTES } from '../memory/migration-stream.ts';
import { PAGER_SOCKET } from '../pager/pager-files.ts';
import type { PagerRequest } from '../pager/pager.ts';
import { startPager, type PagerProcess } from '../pager/pager-process.ts';
import { readLogTail, type QemuProcess } from '../process/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { MAIN_MEMORY, type LoadRequest, type RestoreMethod } from './restore.ts';
import { mayUseUserfaultfd } from '../build/userfaultfd.ts';

/** What the source of a migration does is the pager's (pager.ts); QEMU is an ordinary destination of postcopy. */
const CAPABILITIES = ['postcopy-ram', 'postcopy-preempt', 'events'] as const;

/** An upper limit for what the guest hasn't asked for, in MB/s: for disks that others need too, and for tests. */
const PUSH_LIMIT = 'STASIS_LAZY_PUSH_MBPS';

/**
 * The guest runs after the device state is loaded, whatever its size; a pager, a process of its own, brings its memory:
 * what the guest touches first, all the rest behind that. The guest is independent of the file when all has arrived,
 * after the time of an eager load, and until then must not be captured (memory-arrival.ts waits, and looks after
 * the pager).
 *
 * `load` returns when the guest can be let run. QEMU needs the right to use userfaultfd.
 */
export const lazy: RestoreMethod = {
  name: 'lazy',
  bringsMemory: false,
  machineArgs: () => ['-S', '-incoming', 'defer'],
  startPager: (runDirectory, request) => startPager(runDirectory, pagerRequest(request)),
  load,
};

/** Why a saved guest can't be restored so, for a person, with the cure; undefined when it can. */
export async function whyNotLazy(
  { blocks }: MemoryFile,
  qemu: Pick<QemuBinary, 'startedBy'>,
): Promise<string | undefined> {
  if (!blocks.some(({ id }) => id === MAIN_MEMORY)) return `it has no memory block ${MAIN_MEMORY}`;
  if (await mayUseUserfaultfd(qemu)) return undefined;
  return 'QEMU has no right to use userfaultfd; `stasis doctor` tells how to give it';
}

async function load(process: QemuProcess, request: LoadRequest): Promise<{ readonly loadMs: number }> {
  const { qmp, runDirectory } = process;
  const { signal } = request;
  const begin = performance.now();
  const pager = request.pager ?? (await startPager(runDirectory, pagerRequest(request)));
  using migration = qmp.watch('MIGRATION');
  await allowPostcopy(qmp);
  await qmp.execute(
    'migrate-incoming',
    {
      channels: [{ 'channel-type': 'main', addr: { transport: 'socket', type: 'unix', path: PAGER_SOCKET } }],
      ...stayOnError(qmp),
    },
    { signal },
  );
  pager.begin('serve');
  const devicesLoaded = async (): Promise<void> => {
    const states = ['postcopy-active', 'completed'] as const;
    await waitForMigration(qmp, migration, states, { signal, failure: 'restore-failed' });
    // Nothing announces that the devices are loaded; QEMU answers from the same thread that loads them.
    while ((await qmp.execute('query-status', undefined, { signal })).status === 'inmigrate');
  };
  try {
    await Promise.race([devicesLoaded(), pagerFails(pager)]);
  } catch (error) {
    throw await explain(error, runDirectory);
  }
  return { loadMs: performance.now() - begin };
}

function pagerRequest({ file, hostPageBytes = PAGE_BYTES }: LoadRequest): PagerRequest {
  const megabytes = Number(process.env[PUSH_LIMIT]);
  const pushLimit = megabytes > 0 ? megabytes * 1e6 : undefined;
  return { file, mainBlock: MAIN_MEMORY, hostPageBytes, pushLimit };
}

async function allowPostcopy(qmp: QmpClient): Promise<void> {
  try {
    await prepareMigration(qmp, CAPABILITIES, {});
  } catch (error) {
    const { code, message } = StasisError.from(error);
    if (code !== 'qemu-failed') throw error;
    throw new StasisError(
      'unsupported',
      `${message}; lazy restore needs the right to use userfaultfd, see \`stasis doctor\``,
      { cause: error },
    );
  }
}

/** Rejects when the pager ends before its work is done; QEMU would wait for it in vain. */
async function pagerFails(pager: PagerProcess): Promise<never> {
  const reason = await pager.ended;
  if (reason === undefined) return new Promise(() => undefined);
  throw new StasisError('restore-failed', `the pager of its memory ended: ${reason}`);
}

/** QEMU tells only in its log why it can't go on ("Postcopy needs …"); its pager just sees it go. */
async function explain(error: unknown, runDirectory: string): Promise<unknown> {
  if (!(error instanceof StasisError && error.code === 'restore-failed')) return error;
  const log = (await readLogTail(runDirectory)).filter((line) => line !== '');
  if (log.length === 0) return error;
  return new StasisError(error.code, `${error.message} (${log.join(' / ')})`, {
    details: { log },
    cause: error,
  });
}
