/** What is remembered of a guest is read again after whatever concerns it, and after nothing else. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sql } from 'kysely';
import { openCatalog, type CatalogDatabase } from '../../src/catalog/database.ts';
import { untilGuestWritten, untilWritten, type Reading } from '../../src/catalog/until-written.ts';

const ALL = ['web', 'clone', 'db'];
/** Tables of which no view of guests and images tells anything. */
const NEVER_REMEMBERED = [
  ...['audit', 'captures', 'checksums', 'credentials', 'events', 'fileOwners', 'fileSums'],
  ...[
    'hostBoots',
    'kysely_migration',
    'kysely_migration_lock',
    'operations',
    'records',
    'saveRuns',
    'scrubs',
  ],
  ...['writeTrial'],
];

/** The trees that each guest's disks and images are in. */
const TREES: Readonly<Record<string, readonly string[]>> = {
  web: ['tree1'],
  clone: ['tree1', 'webPoint'],
  db: ['tree2'],
};

const EACH_CHANGE: readonly (readonly [statement: string, concerns: readonly string[]])[] = [
  [`update guests set stateReason = 'why' where uuid = 'db'`, ['db']],
  [`insert into schedules values ('web', 'daily', '{}', 0, '', '')`, ['web']],
  [
    `insert into scheduleRuns (guest, schedule, dueAt, state, attempts, message) values ('web', 'daily', '', 'waiting', 0, '')`,
    ['web'],
  ],
  [`update scheduleRuns set state = 'done'`, ['web']],
  [`delete from schedules`, ['web']],
  [`insert into retention values ('db', '{}') on conflict (guest) do update set rules = '{}'`, ['db']],
  [`update retention set rules = '[]'`, ['db']],
  [`update images set verifiedAt = 'now' where id = 'webPoint'`, ['web', 'clone']], // what the clone was made from
  [`update layers set identity = '{}' where id = 'base'`, ['web', 'clone']],
  [`update layers set parent = null where id = 'top'`, ['web', 'clone']],
  [`insert into pins values ('webPoint', 'root', 'base')`, ['web', 'clone']],
  [`update pins set layer = 'other' where image = 'webPoint'`, ALL],
  [`update pins set layer = 'base' where image = 'webPoint'`, ALL],
  [`insert into heads values ('db', 'root', 'other')`, ['db']],
  [`update heads set layer = 'base'`, ALL],
  [`delete from heads`, ['web', 'clone', 'db']],
  [`delete from images where id = 'webPoint'`, ['web', 'clone']], // and its pins, by the foreign key
  [`delete from guests where uuid = 'db'`, ['db']],
  [
    `insert into events (at, type, action, message) values ('', 'operation', 'save', ''), ('', 'operation', 'save', '')`,
    [],
  ],
  [`insert into writeTrial values (1, '')`, []],
];

test('what is remembered of guests is read again when it changed, and only then', async () => {
  await withCatalog(async (catalog) => {
    const { remembered, readAgain } = reader(catalog);
    await remembered();
    assert.deepEqual(readAgain(), ALL);
    for (const [statement, concerns] of EACH_CHANGE) {
      await sql.raw(statement).execute(catalog);
      await remembered();
      assert.deepEqual(readAgain(), concerns, statement);
      await remembered();
      assert.deepEqual(readAgain(), [], 'nothing has changed since');
    }
  });
});

test('a table is told of to what is remembered, or known not to matter there', async () => {
  await withCatalog(async (catalog) => {
    const names = async (query: string) =>
      (await sql<{ name: string }>`${sql.raw(query)}`.execute(catalog)).rows.map(({ name }) => name);
    const watched = await names(
      `select distinct tbl_name as name from sqlite_temp_schema where name like 'touched%'`,
    );
    const tables = await names(
      `select name from sqlite_schema where type = 'table' and name not like 'sqlite%' order by name`,
    );
    assert.deepEqual(
      tables.filter((table) => !watched.includes(table)),
      NEVER_REMEMBERED,
    );
  });
});

test('what is written while it is read makes it be read again, and so does what is taken back', async () => {
  await withCatalog(async (catalog) => {
    const { remembered, readAgain } = reader(catalog, () =>
      sql`update guests set stateReason = 'meanwhile' where uuid = 'web'`.execute(catalog),
    );
    await remembered();
    await remembered();
    assert.deepEqual(readAgain(), [...ALL, 'web']);

    const taken = new Error('taken back');
    const transaction = catalog.transaction().execute(async (within) => {
      await sql`delete from guests where uuid = 'db'`.execute(within);
      throw taken;
    });
    await assert.rejects(transaction, taken);
    await remembered();
    assert.ok(readAgain().includes('db'));
  });
});

test('a sum over all is made again after a change, not after an event', async () => {
  await withCatalog(async (catalog) => {
    let read = 0;
    const sum = untilWritten(() => Promise.resolve((read += 1)));
    await sum(catalog);
    await sql`insert into events (at, type, action, message) values ('', 'operation', 'save', '')`.execute(
      catalog,
    );
    assert.equal(await sum(catalog), 1);
    await sql`update images set protected = 1`.execute(catalog);
    assert.equal(await sum(catalog), 2);
  });
});

test('of what was not asked for the longest nothing is kept', async () => {
  await withCatalog(async (catalog) => {
    const half = 17 * 1024 ** 2;
    const asked: string[] = [];
    const remembered = untilGuestWritten((_source: { catalog: CatalogDatabase }, [guest = '']) => {
      asked.push(guest);
      return Promise.resolve(new Map([[guest, { value: guest, also: [], bytes: half }]]));
    });
    for (const guest of ['web', 'db', 'db', 'web']) await remembered({ catalog }, [guest]);
    assert.deepEqual(asked, ['web', 'db', 'web']);
  });
});

/** @param meanwhile once, after the first reading and before it is remembered */
function reader(catalog: CatalogDatabase, meanwhile: () => Promise<unknown> = () => Promise.resolve()) {
  const read: string[] = [];
  let isFirst = true;
  const remembered = untilGuestWritten(
    async (_source: { catalog: CatalogDatabase }, guests): Promise<Map<string, Reading<string>>> => {
      read.push(...guests);
      if (isFirst) await meanwhile();
      isFirst = false;
      return new Map(guests.map((guest) => [guest, { value: guest, also: TREES[guest] ?? [], bytes: 1 }]));
    },
  );
  return { remembered: () => remembered({ catalog }, ALL), readAgain: () => read.splice(0) };
}

async function withCatalog(use: (catalog: CatalogDatabase) => Promise<void>): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-catalog-'));
  try {
    const catalog = await openCatalog(join(home, 'catalog.sqlite'));
    for (const guest of ALL)
      await sql`insert into guests (uuid, name, definition, crashed, createdAt) values (${guest}, ${guest}, '{}', 0, '')`.execute(
        catalog,
      );
    for (const [id, tree, parent] of [
      ['base', 'tree1', null],
      ['top', 'tree1', 'base'],
      ['other', 'tree2', null],
    ])
      await sql`insert into layers (id, path, format, parent, root, sizeBytes, tree) values (${id}, ${id}, 'qcow2', ${parent}, 0, 1, ${tree})`.execute(
        catalog,
      );
    await sql`insert into images (id, guest, name, state, createdAt, live, memoryBytes, description, manifest)
      values ('webPoint', 'web', 'point', 'ready', '', 1, 1, '', '{}')`.execute(catalog);
    await use(catalog);
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
}
