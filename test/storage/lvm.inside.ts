import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { StasisError } from '../../src/errors.ts';
import type { LayerFile, Place, PlannedLayer } from '../../src/storage/driver.ts';
import { listVolumes } from '../../src/storage/lvm-volumes.ts';
import { lvm } from '../../src/storage/lvm.ts';

// Run by lvm.test.ts inside the guest with LVM, on its two empty disks. A name with a hyphen, for LVM doubles those.

const GROUP = 'test-group';
const POOL = `${GROUP}/pool`;
const MIB = 1024 ** 2;
const OWNER = '11111111-2222-3333-4444-555555555555';

const call = (tool: string, ...args: string[]) =>
  execFileSync(tool, args, { encoding: 'utf8', stdio: 'pipe' });

before(() => {
  call('vgcreate', '-qq', GROUP, '/dev/ubdc', '/dev/ubdd');
  call('lvcreate', '-qq', '-L', '256M', '-T', POOL);
});

let made = 0;

/** A disk of a user's: a thin volume, or with `area` a plain one whose snapshots get so much. */
class Disk implements AsyncDisposable {
  readonly place: Place;
  readonly root: LayerFile;
  readonly #layers: LayerFile[] = [];

  constructor(sizeMiB = 64, areaMiB?: number) {
    made += 1;
    const name = `disk${made}`;
    const how =
      areaMiB === undefined ? ['-V', `${sizeMiB}M`, '-T', POOL] : ['-Wn', '-Zn', '-L', `${sizeMiB}M`, GROUP];
    call('lvcreate', '-qq', '-y', '-n', name, ...how);
    const path = `/dev/${GROUP}/${name}`;
    this.root = layer(`root${made}`, path, sizeMiB * MIB);
    this.place = {
      ...{ disk: 'disk0', guest: OWNER, directory: tmpdir(), root: path },
      reserveBytes: areaMiB === undefined ? undefined : areaMiB * MIB,
    };
  }

  async copy(head: LayerFile): Promise<PlannedLayer> {
    const planned = await lvm.planCopy?.(head, this.place);
    assert.ok(planned !== undefined, 'it can be copied');
    this.#layers.push(planned);
    await lvm.make(planned, head);
    await lvm.settle(planned);
    return planned;
  }

  async head(from: LayerFile): Promise<PlannedLayer> {
    const planned = await lvm.planHead(from, this.place);
    this.#layers.push(planned);
    await lvm.make(planned, from);
    return planned;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { path } of [...this.#layers.toReversed(), this.root])
      call('sh', '-c', `lvremove -y -qq ${path} || true`);
    await Promise.resolve();
  }
}

function layer(id: string, path: string, sizeBytes: number): LayerFile {
  return { id, path, format: 'raw', sizeBytes, parent: null, driver: 'lvm' };
}

/** Writes a word to the beginning of a MiB, as durably as a guest that flushes. */
async function write(to: LayerFile, atMiB: number, word: string): Promise<void> {
  await using file = await open(to.path, 'r+');
  await file.write(Buffer.alloc(4096, word), 0, 4096, atMiB * MIB);
  await file.sync();
}

async function read(from: LayerFile, atMiB: number): Promise<string> {
  await using file = await open(from.path, 'r');
  const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, atMiB * MIB);
  const [word = ''] = buffer.toString('latin1').split('|');
  return word.replaceAll('\0', '');
}

const names = async () => (await listVolumes(GROUP)).map(({ name }) => name);

test('the guest has a device mapper with thin pools, snapshots and faults', () => {
  const targets = call('dmsetup', 'targets');
  for (const target of ['thin-pool', 'snapshot', 'flakey'])
    assert.match(targets, new RegExp(`^${target} `, 'm'));
});

describe('a thin volume', () => {
  test('is captured by a read-only copy, and goes on from a writable one', async () => {
    await using disk = new Disk();
    await write(disk.root, 3, 'saved|');
    const copy = await disk.copy(disk.root);
    await write(disk.root, 3, 'later|');
    assert.equal(await read(copy, 3), 'saved');
    await assert.rejects(write(copy, 3, 'never|'), 'nobody can write to what an image has');
    const head = await disk.head(copy);
    await write(head, 4, 'restored|');
    assert.deepEqual(
      [await read(head, 3), await read(head, 4), await read(copy, 4), await read(disk.root, 3)],
      ['saved', 'restored', '', 'later'],
    );
    const second = await disk.copy(head);
    await write(head, 4, 'again|');
    assert.deepEqual([await read(second, 3), await read(second, 4)], ['saved', 'restored']);
  });

  test('that has 1 TiB costs no more than one of 1 GiB', async (t) => {
    const costs: number[] = [];
    for (const sizeGiB of [1, 1024]) {
      await using disk = new Disk(sizeGiB * 1024);
      await write(disk.root, 0, 'first|');
      await write(disk.root, sizeGiB * 1024 - 1, 'last|');
      const usedBefore = await poolUse();
      const startMs = performance.now();
      const copy = await disk.copy(disk.root);
      const tookMs = performance.now() - startMs;
      costs.push((await poolUse()) - usedBefore);
      assert.equal(await read(copy, sizeGiB * 1024 - 1), 'last');
      t.diagnostic(
        `figure: copy of a thin volume of ${sizeGiB} GiB: ${Math.round(tookMs)} ms, plan to device`,
      );
    }
    assert.deepEqual(costs, [0, 0], 'a copy takes no data of the pool');
  });

  test('is tried out without a trace', async (t) => {
    await using disk = new Disk();
    const existing = await names();
    const tookMs = (await lvm.rehearse?.(disk.root)) ?? Number.NaN;
    assert.ok(tookMs > 0);
    t.diagnostic(`figure: snapshot as in a pause: ${Math.round(tookMs)} ms`);
    assert.deepEqual(await names(), existing);
  });

  test('is copied again over what an interrupted attempt left', async () => {
    await using disk = new Disk();
    await write(disk.root, 1, 'old|');
    const copy = await disk.copy(disk.root);
    await write(disk.root, 1, 'new|');
    await lvm.make(copy, disk.root);
    await lvm.settle(copy);
    assert.equal(await read(copy, 1), 'new');
  });

  test('gets the name and the tags of the root back, whatever step an attempt is interrupted at', async () => {
    for (let failAt = 1, isDone = false; !isDone; failAt += 1) {
      await using disk = new Disk();
      call('lvchange', '-qq', '--addtag', 'mine', disk.root.path);
      await write(disk.root, 2, 'root|');
      const copy = await disk.copy(disk.root);
      const head = await disk.head(copy);
      await write(head, 2, 'head|');
      await lvm.remove(copy);
      const sealed = await lvm.identity(head);
      isDone = await failingAt(failAt, () => lvm.replaceRoot(head, disk.root, sealed));
      await lvm.replaceRoot(head, disk.root, sealed);
      assert.equal(await read(disk.root, 2), 'head', `interrupted at ${failAt}`);
      assert.equal((await lvm.identity(disk.root)).inode, sealed.inode);
      const left = (await listVolumes(GROUP)).filter(({ name }) => name !== 'pool');
      assert.deepEqual(
        left.map(({ name, tags }) => [name, tags.includes('mine'), tags.includes('stasis')]),
        [[disk.root.path.split('/').at(-1), true, false]],
      );
      assert.ok(failAt < 20);
    }
  });

  test('that is lost is not taken for one that took its place', async () => {
    await using disk = new Disk();
    const copy = await disk.copy(disk.root);
    const head = await disk.head(copy);
    const sealed = await lvm.identity(head);
    await lvm.remove(head);
    await assert.rejects(lvm.replaceRoot(head, disk.root, sealed), code('disk-missing'));
  });

  test('in a pool that is nearly full is refused, with numbers', async () => {
    await using disk = new Disk(248);
    call('sh', '-c', `dd if=/dev/zero of=${disk.root.path} bs=1M oflag=direct 2>/dev/null || true`);
    await write(disk.root, 0, 'x|');
    const existing = await names();
    await assert.rejects(
      async () => lvm.planCopy?.(disk.root, disk.place),
      (error: unknown) => {
        assert.ok(error instanceof StasisError && error.code === 'no-space');
        assert.match(error.message, /thin pool test-group\/pool has \d+ MiB free of the 12 MiB/);
        return true;
      },
    );
    assert.deepEqual(await names(), existing);
  });
});

describe('a plain volume', () => {
  test('is captured by a classic snapshot, and what is restored from it is an overlay', async () => {
    await using disk = new Disk(64, 32);
    await write(disk.root, 3, 'saved|');
    const copy = await disk.copy(disk.root);
    await write(disk.root, 3, 'later|');
    assert.deepEqual([await read(copy, 3), await read(disk.root, 3)], ['saved', 'later']);
    await assert.rejects(write(copy, 3, 'never|'));
    const head = await lvm.planHead(copy, disk.place);
    assert.deepEqual([head.driver, head.parent, head.format], ['overlay', copy.id, 'qcow2']);
    assert.equal(lvm.canTakeIn(copy), false);
  });

  test('loses a snapshot whose area overflows, and that is noticed', async () => {
    await using disk = new Disk(64, 4);
    await write(disk.root, 3, 'saved|');
    const copy = await disk.copy(disk.root);
    const sealed = await lvm.identity(copy);
    assert.equal((await lvm.identity(copy)).inode, sealed.inode);
    for (let atMiB = 0; atMiB < 8; atMiB += 1) {
      await using file = await open(disk.root.path, 'r+');
      await file.write(Buffer.alloc(MIB, 'x'), 0, MIB, atMiB * MIB);
      await file.sync();
    }
    await assert.rejects(lvm.identity(copy), code('disk-changed'));
    await lvm.remove(copy);
  });

  test('takes back what a snapshot held, when it is the only one', async () => {
    await using disk = new Disk(64, 32);
    await write(disk.root, 3, 'saved|');
    const first = await disk.copy(disk.root);
    const second = await disk.copy(disk.root);
    await write(disk.root, 3, 'later|');
    const sealed = await lvm.identity(first);
    assert.match((await lvm.whyNotReplace?.(first)) ?? '', /other snapshots/);
    await lvm.remove(second);
    assert.equal(await lvm.whyNotReplace?.(first), undefined);
    await lvm.replaceRoot(first, disk.root, sealed);
    await lvm.replaceRoot(first, disk.root, sealed);
    assert.equal(await read(disk.root, 3), 'saved');
    assert.equal((await lvm.identity(disk.root)).inode, sealed.inode);
  });

  test('is refused a snapshot that the group has no room for, with numbers', async () => {
    await using disk = new Disk(5 * 1024, 4 * 1024);
    await assert.rejects(async () => lvm.planCopy?.(disk.root, disk.place), code('no-space'));
  });
});

describe('what a disk needs', () => {
  test('is found out by trying', async () => {
    await using thin = new Disk();
    await using plain = new Disk(64, 16);
    const why = (path: string, reserveBytes?: number) => lvm.whyNot({ path, format: 'raw', reserveBytes });
    assert.equal(await why(thin.root.path), undefined);
    assert.equal(await why(thin.root.path.replace('test-group/', 'mapper/test--group-')), undefined);
    assert.match((await why(plain.root.path)) ?? '', /snapshotSize/);
    assert.equal(await why(plain.root.path, 8 * MIB), undefined);
    assert.match((await why(`/dev/${GROUP}/none`)) ?? '', /no such volume/);
    assert.match((await why(`/dev/${POOL}`)) ?? '', /no snapshots/);
    assert.match((await why('/dev/ubdc')) ?? '', /not that of a logical volume/);
    assert.deepEqual(
      (await names()).filter((name) => name.startsWith('stasis')),
      [],
    );
  });

  test('volumes of nobody are removed, those of others are not', async () => {
    await using disk = new Disk();
    const copy = await disk.copy(disk.root);
    const stray = await disk.copy(disk.root);
    await using other = new Disk();
    const others = { ...other.place, guest: '99999999-2222-3333-4444-555555555555' };
    const theirs = await lvm.planCopy?.(other.root, others);
    assert.ok(theirs !== undefined);
    await lvm.make(theirs, other.root);
    try {
      assert.deepEqual(await lvm.removeStrays?.(OWNER, [disk.root, copy]), [stray.path]);
      assert.ok((await names()).includes(theirs.path.split('/').at(-1) ?? ''));
    } finally {
      await lvm.remove(theirs);
    }
    await assert.rejects(lvm.remove(disk.root), code('internal'), 'a volume of the user is never removed');
  });
});

function code(wanted: string): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof StasisError && error.code === wanted, String(error));
    return true;
  };
}

async function poolUse(): Promise<number> {
  const pool = (await listVolumes(GROUP)).find(({ name }) => name === 'pool');
  return pool?.used ?? Number.NaN;
}

/** Does the work with LVM's commands failing from the n-th change on. @returns whether it came to its end before */
async function failingAt(n: number, work: () => Promise<void>): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), 'failing-'));
  const path = process.env['PATH'] ?? '';
  try {
    await writeFile(join(directory, 'count'), '');
    for (const tool of ['lvchange', 'lvrename', 'lvremove', 'lvconvert']) {
      const script = `#!/bin/sh\necho >> ${directory}/count\n[ $(wc -l < ${directory}/count) -lt ${n} ] || exit 1\nexec /usr/sbin/${tool} "$@"\n`;
      await writeFile(join(directory, tool), script);
      await chmod(join(directory, tool), 0o755);
    }
    process.env['PATH'] = `${directory}:${path}`;
    return await work().then(
      () => true,
      () => false,
    );
  } finally {
    process.env['PATH'] = path;
    await rm(directory, { recursive: true, force: true });
  }
}

after(() => {
  call('vgremove', '-qq', '-y', GROUP);
});
