/**
 * Room for what must also be possible on a full disk: to stop a guest, to delete an image. Both are journaled, so the catalog has to
 * grow by some pages. SQLite's write-ahead log is never made shorter while it is open, and written again from its beginning after each
 * checkpoint: zeroes behind what it holds, which it takes for nothing, are room that is its own and that nobody else can take.
 *
 * A checkpoint that finds no room for the catalog itself is made later; until then the log goes on into this room. On a file system
 * that copies what is written anew (Btrfs, ZFS) there is no such thing as room of one's own: there it helps as far as that allows.
 */
import { open } from 'node:fs/promises';
import { errnoOf } from '../errors.ts';

/** SQLite makes a checkpoint from 4 MiB on: as much again, and an operation takes some dozen KiB. */
const RESERVE_BYTES = 8 * 1024 ** 2;
const PIECE = Buffer.alloc(256 * 1024);

/**
 * Makes the room, or makes it whole. Repeatable.
 * @param catalog the path of one that is open
 * @returns how many bytes of it there was no space for
 */
export async function reserveRoom(catalog: string): Promise<number> {
  // Only ever appended: what SQLite writes meanwhile stays.
  await using log = await open(`${catalog}-wal`, 'a', 0o600);
  for (;;) {
    const { size } = await log.stat();
    const missing = RESERVE_BYTES - size;
    if (missing <= 0) return 0;
    try {
      await log.write(PIECE, 0, Math.min(missing, PIECE.length));
    } catch (error) {
      if (!['ENOSPC', 'EDQUOT'].includes(errnoOf(error) ?? '')) throw error;
      return missing;
    }
  }
}
