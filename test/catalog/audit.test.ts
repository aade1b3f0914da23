import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sql } from 'kysely';
import { appendAudit, lastAudit, trimAudit, verifyAudit } from '../../src/catalog/audit.ts';
import { openCatalog } from '../../src/catalog/database.ts';
import { storedBytes } from '../../src/catalog/statistics.ts';

const entry = (guest: string) => ({
  ...{ at: '2026-01-01T00:00:00.000Z', kind: 'call' as const, caller: null, action: 'a', guest, image: null },
  ...{ parameters: null, outcome: 'done', operation: null, request: null, message: null },
});

test('a trail that forgot its beginning, again and again, is still one that can be verified', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-audit-'));
  try {
    const catalog = await openCatalog(join(home, 'catalog.sqlite'));
    assert.deepEqual(await verifyAudit(catalog), { problem: null, entries: 0, last: null });
    for (let round = 0; round < 40; round += 1) {
      await catalog.transaction().execute(async (transaction) => {
        await appendAudit(transaction, entry(`guest${round}`));
        if (round % 7 === 6) await trimAudit(transaction, '2026-01-01T00:00:00.000Z', 5);
      });
    }
    const { problem, entries, last } = await verifyAudit(catalog);
    assert.deepEqual([problem, entries], [null, 10]); // five, the trim among them, and what came since
    assert.equal((await verifyAudit(catalog, last?.hash)).problem, null);
    const [first] = await lastAudit(catalog, {}, 100);
    await catalog
      .deleteFrom('audit')
      .where('id', '=', first?.id ?? 0)
      .execute();
    assert.match((await verifyAudit(catalog)).problem ?? '', /entries between are missing/);
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
});

test('sums over all images read no manifest', async () => {
  const home = await mkdtemp(join(tmpdir(), 'stasis-audit-'));
  try {
    const catalog = await openCatalog(join(home, 'catalog.sqlite'));
    const { rows } = await sql<{ detail: string }>`explain query plan
      select coalesce(sum(json_extract(manifest, '$.memoryFile.storedBytes')), 0) from images where state in ('ready', 'broken')`.execute(
      catalog,
    );
    assert.match(rows.map(({ detail }) => detail).join(), /COVERING INDEX imagesByBytes/);
    assert.deepEqual(await storedBytes(catalog), { images: 0, memoryBytes: 0, layerBytes: 0 });
    await catalog.destroy();
  } finally {
    await rm(home, { recursive: true });
  }
});
