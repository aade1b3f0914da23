import type { Doctor } from '../../api/schemas.ts';

/** One thing looked at. */
export type Check = Doctor['checks'][number];

/** What a check found, before it has a name. A cure may stand beside `ok`: it says how there would be more. */
export type Finding = Omit<Check, 'name' | 'serves'>;

export function ok(message: string, cure: string | null = null): Finding {
  return { status: 'ok', message, cure };
}

export function degraded(message: string, cure: string): Finding {
  return { status: 'degraded', message, cure };
}
