/** How fast this host writes guests that are saved and stopped: what earlier saves reached, else what to assume. */
import { recentCaptures } from '../catalog/captures.ts';
import type { CatalogDatabase } from '../catalog/database.ts';
import { listImages } from '../catalog/images.ts';
import { saveRuns } from '../catalog/save-runs.ts';
import { manifestOf } from '../images/load.ts';
import { FIXED_MS } from './budget.ts';

export interface WriteSpeed {
  /** of all saves together */
  readonly bytesPerSecond: number;
  /** where that is from, for people */
  readonly basis: string;
}

/** What a first time reckons with, in bytes per second: a slow SSD. Measured here: 0.3 to 2 GB/s (QEMU 10.0, ext4). */
const ASSUMED = 300e6;
/** Of what is smaller, most of the time is not spent on writing. */
const TELLING_BYTES = 128 * 1024 ** 2;
const LISTENED_TO = 9;

export async function writeSpeed(catalog: CatalogDatabase): Promise<WriteSpeed> {
  const runs = (await saveRuns(catalog)).filter(({ bytes }) => bytes >= TELLING_BYTES).slice(0, LISTENED_TO);
  if (runs.length > 0)
    return { bytesPerSecond: rate(runs), basis: `reached when all were saved (${runs.length})` };
  const saves = await stoppingSaves(catalog);
  if (saves.length > 0)
    return { bytesPerSecond: rate(saves), basis: `reached by saves that stopped a guest (${saves.length})` };
  const captures = (await recentCaptures(catalog, 'precopy', LISTENED_TO))
    .map(({ bytesPerSecond }) => bytesPerSecond)
    .toSorted((a, b) => a - b);
  const median = captures[Math.floor(captures.length / 2)];
  if (median !== undefined && median > 0)
    return { bytesPerSecond: median, basis: `reached by live saves (${captures.length})` };
  return { bytesPerSecond: ASSUMED, basis: 'assumed, until there are saves to go by' };
}

interface Written {
  readonly bytes: number;
  readonly durationMs: number;
}

async function stoppingSaves(catalog: CatalogDatabase): Promise<Written[]> {
  return (await listImages(catalog))
    .toReversed()
    .map((image) => manifestOf(image))
    .filter(({ method, bytesWritten = 0 }) => method === 'stopped' && bytesWritten >= TELLING_BYTES)
    .slice(0, LISTENED_TO)
    .map(({ bytesWritten = 0, saveMs }) => ({
      bytes: bytesWritten,
      durationMs: Math.max(saveMs - FIXED_MS, saveMs / 4),
    }));
}

/** Large ones count for more. */
function rate(written: readonly Written[]): number {
  const bytes = written.reduce((sum, each) => sum + each.bytes, 0);
  const durationMs = written.reduce((sum, each) => sum + each.durationMs, 0);
  return (bytes / Math.max(1, durationMs)) * 1000;
}
