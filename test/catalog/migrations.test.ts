/** A catalog of before there were storage drivers is read as what it says. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sql } from 'kysely';
import { openCatalog } from '../../src/catalog/database.ts';
import { insertOperation, unsettledOperations, type OperationRecord } from '../../src/catalog/operations.ts';
import { rootsOfGuest } from '../../src/catalog/layers.ts';

const WEB = '11111111-1111-4111-8111-111111111111';
const CLONE = '22222222-2222-4222-8222-222222222222';
const DISKS = [{ name: 'disk0', path: '/srv/web.qcow2' }];
const layersOf = (uuid: string) => `/home/guests/${uuid}/layers`;

test('layers get their tree, their guest and their driver, and an interrupted plan can be undone', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-catalog-'));
  try {
    const path = join(home, 'catalog.sqlite');
    await (await openCatalog(path, '0003-captures')).destroy(); // as it was before that migration
    plant(path);

    const catalog = await openCatalog(path);
    const layers = await catalog
      .selectFrom('layers')
      .select(['id', 'driver', 'tree', 'guest'])
      .orderBy('id')
      .execute();
    assert.deepEqual(
      layers.map(({ id, driver, tree, guest }) => [id, driver, tree, guest]),
      [
        ['a', 'overlay', 'root', WEB],
        ['b', 'overlay', 'root', CLONE],
        ['root', 'overlay', 'root', WEB],
      ],
    );
    for (const guest of [WEB, CLONE]) assert.deepEqual(await rootsOfGuest(catalog, guest), ['root']);
    const { rows } = await sql<{ plan: string }>`select plan from operations`.execute(catalog);
    assert.deepEqual(JSON.parse(rows[0]?.plan ?? ''), {
      heads: [{ id: 'new', parent: 'a', driver: 'overlay', format: 'qcow2', from: 'a' }],
      copies: [],
    });
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
});

test('a migration that fails in its midst has changed nothing, and can be made later', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-catalog-'));
  try {
    const path = join(home, 'catalog.sqlite');
    await (await openCatalog(path, '0002-outcomes')).destroy();
    const tables = () => {
      using database = new DatabaseSync(path);
      return database.prepare('select name, sql from sqlite_schema order by name').all();
    };
    inDatabase(path, 'create index capturesByMethod on guests (name)'); // in the way of the next one's last statement
    const before = tables();
    await assert.rejects(openCatalog(path), { code: 'storage-failed', message: /capturesByMethod/ });
    assert.deepEqual(tables(), before);

    inDatabase(path, 'drop index capturesByMethod');
    const catalog = await openCatalog(path);
    await catalog.selectFrom('captures').selectAll().execute();
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
});

test('a child is settled before its parent, also when the clock was set back between the two', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-catalog-'));
  try {
    const catalog = await openCatalog(join(home, 'catalog.sqlite'));
    await insertOperation(catalog, operation('parent', '2026-01-02T00:00:00.000Z'));
    await insertOperation(catalog, operation('child', '2026-01-01T00:00:00.000Z'));
    assert.deepEqual(
      (await unsettledOperations(catalog)).map(({ id }) => id),
      ['child', 'parent'],
    );
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
});

function operation(id: string, createdAt: string): OperationRecord {
  return {
    ...{ id, createdAt, kind: 'save', procedure: 'save', parent: null, guest: null, guestName: 'web' },
    ...{ image: null, state: 'running', committed: 0, args: '{}', plan: '{}', steps: '[]', warnings: '[]' },
    ...{ outcomes: '[]', error: null, settled: 0, finishedAt: null, caller: null },
    ...{ requestKey: null, requestHash: null },
  };
}

function inDatabase(path: string, statement: string): void {
  using database = new DatabaseSync(path);
  database.exec(statement);
}

/** A guest with an image, and a clone that stands on it. */
function plant(path: string): void {
  const database = new DatabaseSync(path);
  const guest = database.prepare(`insert into guests values (?, ?, ?, null, 0, null, null, '')`);
  guest.run(WEB, 'web', JSON.stringify({ disks: DISKS }));
  guest.run(CLONE, 'clone', JSON.stringify({ disks: DISKS, clone: { guest: 'web', image: 'x' } }));
  const layer = database.prepare(`insert into layers values (?, ?, 'qcow2', ?, ?, 1, null)`);
  layer.run('root', '/srv/web.qcow2', null, 1);
  layer.run('a', `${layersOf(WEB)}/disk0-a.qcow2`, 'root', 0);
  layer.run('b', `${layersOf(CLONE)}/disk0-b.qcow2`, 'root', 0);
  const head = database.prepare(`insert into heads values (?, 'disk0', ?)`);
  head.run(WEB, 'a');
  head.run(CLONE, 'b');
  database
    .prepare(
      `insert into operations values ('o', 'save', 'save', null, null, 'web', null, 'running', 0, '{}', ?, '[]', '[]', null, 0, '', null, '[]')`,
    )
    .run(JSON.stringify({ heads: [{ id: 'new', parent: 'a' }] }));
  database.close();
}
