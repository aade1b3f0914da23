/** Boots of the host as records: which one it is, how the one before ended, and what was done for each guest. */
import type { Insertable, Selectable } from 'kysely';
import type { Catalog } from './database.ts';
import type { HostBootTable } from './schema.ts';

export type HostBootRecord = Selectable<HostBootTable>;

const KEPT_BOOTS = 100;

/** The boot that is known last. */
export async function lastBoot(catalog: Catalog): Promise<HostBootRecord | undefined> {
  return catalog.selectFrom('hostBoots').selectAll().orderBy('id', 'desc').limit(1).executeTakeFirst();
}

/** The last one in which the guests were ended for a shutdown of the host, to the end. */
export async function lastShutdown(catalog: Catalog): Promise<HostBootRecord | undefined> {
  return catalog
    .selectFrom('hostBoots')
    .selectAll()
    .where('shutdownAt', 'is not', null)
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst();
}

export async function insertBoot(
  catalog: Catalog,
  boot: Pick<Insertable<HostBootTable>, 'bootId' | 'seenAt' | 'after' | 'ran' | 'settledAt'>,
): Promise<void> {
  await catalog
    .insertInto('hostBoots')
    .values({
      ...boot,
      outcomes: '[]',
      shutdownAt: null,
      shutdownClean: 0,
      shutdownLeft: '[]',
      shutdownOutcomes: '[]',
    })
    .execute();
  await catalog
    .deleteFrom('hostBoots')
    .where('id', 'not in', (select) =>
      select.selectFrom('hostBoots').select('id').orderBy('id', 'desc').limit(KEPT_BOOTS),
    )
    .execute();
}

export async function setBootOutcomes(catalog: Catalog, id: number, outcomes: string): Promise<void> {
  await catalog.updateTable('hostBoots').set({ outcomes }).where('id', '=', id).execute();
}

export async function settleBoot(catalog: Catalog, id: number, settledAt: string): Promise<void> {
  await catalog.updateTable('hostBoots').set({ settledAt }).where('id', '=', id).execute();
}

/** The guests have been ended for a shutdown. */
export async function markShutdown(
  catalog: Catalog,
  id: number,
  shutdown: Pick<HostBootRecord, 'shutdownAt' | 'shutdownLeft' | 'shutdownOutcomes'> & {
    shutdownClean: 0 | 1;
  },
): Promise<void> {
  await catalog.updateTable('hostBoots').set(shutdown).where('id', '=', id).execute();
}
