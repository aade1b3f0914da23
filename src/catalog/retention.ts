/** Which images of a guest stay, as its user said. */
import type { Catalog } from './database.ts';

/** @param guests UUIDs. @returns each one's rules, JSON; guests without any are absent */
export async function listRetention(
  catalog: Catalog,
  guests: readonly string[],
): Promise<Map<string, string>> {
  const rows = await catalog.selectFrom('retention').selectAll().where('guest', 'in', guests).execute();
  return new Map(rows.map(({ guest, rules }) => [guest, rules]));
}

export async function setRetention(catalog: Catalog, guest: string, rules: string): Promise<void> {
  await catalog
    .insertInto('retention')
    .values({ guest, rules })
    .onConflict((conflict) => conflict.column('guest').doUpdateSet({ rules }))
    .execute();
}
