import { StasisError } from '../../errors.ts';
import type { QmpClient } from '../qmp/client.ts';

export interface OverlayNode {
  /** At most 31 characters: letters, digits, `-`, `.`, `_`, beginning with a letter. */
  readonly nodeName: string;
  /** The qcow2 file. What its header says of a backing file is not followed. */
  readonly path: string;
  readonly discard?: boolean;
  /** how the node and the file below it are opened beyond that: as the nodes that it will stand on */
  readonly options?: NodeOptions;
}

export interface NodeOptions {
  readonly format: { readonly cache?: CacheOptions; readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap' };
  readonly file: { readonly cache?: CacheOptions; readonly aio?: 'threads' | 'native' | 'io_uring' };
}

export interface CacheOptions {
  readonly direct: boolean;
  readonly 'no-flush': boolean;
}

export interface DiskSwitch {
  /** The node that the guest writes to now. */
  readonly node: string;
  /** The node that it shall write to, made by `addOverlayNode`. */
  readonly overlay: string;
}

/**
 * Opens a new, empty overlay, so that nothing has to be opened within the pause. It has no backing node yet: it gets
 * the old head by `switchDisks`. Undo with `removeNode`.
 * @throws StasisError `qemu-failed`
 */
export async function addOverlayNode(qmp: QmpClient, overlay: OverlayNode): Promise<void> {
  const discard = overlay.discard === false ? 'ignore' : 'unmap';
  await qmp.execute('blockdev-add', {
    driver: 'qcow2',
    'node-name': overlay.nodeName,
    backing: null,
    discard,
    ...overlay.options?.format,
    file: { driver: 'file', filename: overlay.path, discard, ...overlay.options?.file },
  });
}

/**
 * Lays each overlay over its node, for all disks at one instant: QEMU drains them, switches, and on a failure rolls
 * all back. 1 to 3 ms for two disks; a running guest doesn't notice.
 * @throws StasisError `qemu-failed`: then no disk was switched
 */
export async function switchDisks(qmp: QmpClient, switches: readonly DiskSwitch[]): Promise<void> {
  if (switches.length === 0) return;
  await qmp.execute('transaction', {
    actions: switches.map((data) => ({ type: 'blockdev-snapshot' as const, data })),
  });
}

/**
 * Closes a node that nobody uses, if it is there.
 * @throws StasisError `qemu-failed` when it is in use
 */
export async function removeNode(qmp: QmpClient, nodeName: string): Promise<void> {
  if ((await nodeNames(qmp)).has(nodeName)) await qmp.execute('blockdev-del', { 'node-name': nodeName });
}

/** The names of all nodes, those that QEMU named itself (`#block123`) too. */
export async function nodeNames(qmp: QmpClient): Promise<ReadonlySet<string>> {
  const nodes = await qmp.execute('query-named-block-nodes', { flat: true });
  return new Set(nodes.map((node) => node['node-name']));
}

/**
 * The node that each device writes to, by the device's id (`-device …,id=ID`), or its QOM path or drive name when it
 * was given no id. Empty drives are left out.
 */
export async function headNodes(qmp: QmpClient): Promise<ReadonlyMap<string, string>> {
  const heads = new Map<string, string>();
  for (const { inserted, qdev, device } of await qmp.execute('query-block')) {
    if (inserted?.['node-name'] !== undefined) heads.set(deviceId(qdev) ?? device, inserted['node-name']);
  }
  return heads;
}

/**
 * The nodes from `nodeName` down its backing files to the root, itself first. Filters that a running job has put in
 * between are passed through and not named.
 * @throws StasisError `qemu-failed` when there is no such node, or the chain has no end
 */
export async function backingChain(qmp: QmpClient, nodeName: string): Promise<readonly string[]> {
  const graph = await qmp.execute('x-debug-query-block-graph');
  const drivers = new Map(
    graph.nodes.filter(({ type }) => type === 'block-driver').map(({ id, name }) => [id, name]),
  );
  const children = new Map(graph.edges.map((edge) => [`${edge.parent} ${edge.name}`, edge.child]));
  const chain: string[] = [];
  const passed = new Set<number>();
  let current = graph.nodes.find(({ type, name }) => type === 'block-driver' && name === nodeName)?.id;
  if (current === undefined) {
    throw new StasisError('qemu-failed', `QEMU has no block node "${nodeName}"`, { details: { nodeName } });
  }
  while (current !== undefined) {
    if (passed.has(current))
      throw new StasisError('qemu-failed', `QEMU's block node "${nodeName}" stands on itself`, {
        details: { nodeName },
      });
    passed.add(current);
    const name = drivers.get(current);
    const below = children.get(`${current} backing`);
    // A job's filter hangs in the chain by "backing" too, and has no "file".
    if (name !== undefined && (below === undefined || children.has(`${current} file`))) {
      chain.push(name);
    }
    current = below;
  }
  return chain;
}

/** virtio-blk's backend is told as `/machine/peripheral/ID/virtio-backend`; a plain device as ID or its path. */
function deviceId(qdev: string | undefined): string | undefined {
  return qdev === undefined ? undefined : (/^\/machine\/peripheral\/([^/]+)/.exec(qdev)?.[1] ?? qdev);
}
