/** Logical volumes as disks, inside the guest with LVM: a group on its two scratch disks, and a thin pool in it. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { listVolumes } from '../../src/storage/lvm-volumes.ts';
import type { Ground, GroundKind } from './grounds.ts';

const run = promisify(execFile);
export const GROUP = 'guests';
const POOL_MIB = 768;
const SNAPSHOT_MIB = 16;
/** Emulated, a snapshot takes a while: with the usual limit disks would get overlays. */
const MAX_PAUSE_MS = 60_000;

type Kind = 'thin' | 'plain';

async function open(kinds: readonly [Kind, Kind]): Promise<Ground> {
  await run('vgcreate', ['-qq', GROUP, '/dev/ubdc', '/dev/ubdd']);
  await run('lvcreate', ['-qq', '-L', `${POOL_MIB}M`, '-T', `${GROUP}/pool`]);
  let made = 0;
  return {
    async makeDisk(name, sizeMiB) {
      const kind = kinds[made % 2];
      made += 1;
      const how =
        kind === 'thin' ? ['-V', `${sizeMiB}M`, '-T', `${GROUP}/pool`] : ['-L', `${sizeMiB}M`, GROUP];
      await run('lvcreate', ['-qq', '-y', '-n', name, ...how]);
      const path = `/dev/${GROUP}/${name}`;
      return { path, format: 'raw', ...(kind === 'plain' ? { snapshotSize: `${SNAPSHOT_MIB}MiB` } : {}) };
    },
    layers: async () =>
      (await listVolumes(GROUP))
        .filter(({ name }) => name.startsWith('stasis-'))
        .map(({ name }) => `/dev/${GROUP}/${name}`),
    async [Symbol.asyncDispose]() {
      await run('vgremove', ['-qq', '-y', GROUP]);
    },
  };
}

const common = { driver: 'lvm', skip: false, maxPauseMs: MAX_PAUSE_MS } as const;

export const THIN_VOLUMES: GroundKind = {
  name: 'thin volumes',
  ...common,
  open: () => open(['thin', 'thin']),
};
/** Whose snapshots are classic ones. */
export const PLAIN_VOLUMES: GroundKind = {
  name: 'plain volumes',
  ...common,
  open: () => open(['plain', 'plain']),
};
/** The first disk thin, the second plain. */
export const BOTH_VOLUMES: GroundKind = {
  name: 'a thin and a plain volume',
  ...common,
  open: () => open(['thin', 'plain']),
};

/** The volumes of the group: a user's by their names, ours by `head`, `copy` or `snap`. */
export async function volumes(): Promise<string[]> {
  return (await listVolumes(GROUP)).map(({ name }) => /^stasis-([a-z]+)-/.exec(name)?.[1] ?? name).toSorted();
}
