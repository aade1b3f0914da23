/** The disk below the catalog fails its reads: that is no damage of the catalog, and who has it must not be told to make it again. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkCatalog, openCatalog } from '../../src/catalog/database.ts';
import { insertEvent, lastEvents } from '../../src/catalog/events.ts';
import { StasisError } from '../../src/errors.ts';
import { FrailDisk, noFrailDisk } from '../support/frail-disk.ts';

const EVENTS = 300;

test(
  'a catalog that its disk does not let be read is not told as damaged, and is what it was afterwards',
  { skip: noFrailDisk() },
  async () => {
    await using disk = await FrailDisk.open(64, 'ext4');
    const path = join(disk.directory, 'catalog.sqlite');
    const written = await openCatalog(path);
    for (let count = 0; count < EVENTS; count += 1)
      await insertEvent(written, {
        ...{ at: new Date().toISOString(), type: 'daemon', action: 'started', message: 'x'.repeat(4000) },
        ...{ guest: null, image: null, operation: null },
      });
    await written.destroy(); // and what it has in memory

    const failing = await openCatalog(path);
    await disk.refuseReads();
    await assert.rejects(lastEvents(failing, EVENTS), (error: Error) => error.message.includes('disk fails'));
    await assert.rejects(checkCatalog(failing), { code: 'storage-failed' });
    await failing.destroy();
    await assert.rejects(openCatalog(path), (error) => StasisError.from(error).code === 'storage-failed');

    await disk.restart();
    const sound = await openCatalog(path);
    await checkCatalog(sound);
    assert.equal((await lastEvents(sound, EVENTS)).length, EVENTS);
    await sound.destroy();
  },
);
