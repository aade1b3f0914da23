/** A catalog of before there were storage drivers is read as what it says. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sql } from 'kysely';
import { openCatalog } from '../../src/catalog/database.ts';
import { rootsOfGuest } from '../../src/catalog/layers.ts';

const WEB = '11111111-1111-4111-8111-111111111111';
const CLONE = '22222222-2222-4222-8222-222222222222';
const DISKS = [{ name: 'disk0', path: '/srv/web.qcow2' }];
const layersOf = (uuid: string) => `/home/guests/${uuid}/layers`;

test('layers get their tree, their guest and their driver, and an interrupted plan can be undone', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-catalog-'));
  try {
    const path = join(home, 'catalog.sqlite');
    await (await openCatalog(path)).destroy();
    takeBack(path);
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

/** The catalog as it was before that migration. */
function takeBack(path: string): void {
  const database = new DatabaseSync(path);
  database.exec(`drop index layersByTree; alter table layers drop column driver; alter table layers drop column tree;
    alter table layers drop column guest; delete from kysely_migration where name >= '0004'`);
  database.close();
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
