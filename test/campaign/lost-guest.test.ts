/**
 * A guest, a clone of it and a clone of that: the catalog is lost, and of each combination of them the record too. All of their images
 * come back as they were, and so does what they are written to. `STASIS_REBUILD=1 node --test test/campaign/lost-guest.test.ts`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from '../support/lab.ts';
import { loseCatalog, loseGuestFile, rebuild } from '../support/recovery.ts';
import { changeContent, checkHousekeeping, contentOf, type Content } from '../support/rules.ts';

const GUESTS = ['web1', 'clone1', 'clone2'] as const;
const NOT_ASKED_FOR = process.env['STASIS_REBUILD'] === undefined && 'a campaign: STASIS_REBUILD=1';

test(
  'guests that stand on each other come back without their records',
  { skip: NOT_ASKED_FOR },
  async (t) => {
    await using lab = await Lab.create();
    const { client } = lab;
    const images = new Map<string, Content>();
    const presents = new Map<string, Content>();
    let seed = 1;
    const change = (guest: string) => changeContent(lab, guest, (seed += 1));
    const save = async (guest: string, name: string) => {
      images.set(`${guest}/${name}`, await change(guest));
      await client.createSaveImage(guest, { name, live: true });
    };
    {
      await using witness = await lab.running('web1', { system: 'bare', disks: 1 });
      await witness.fill(3, 2);
    }
    await save('web1', 'a');
    await client.restoreSaveImage('web1', 'a', { asNewGuest: 'clone1' });
    await save('clone1', 'b');
    await client.restoreSaveImage('clone1', 'b', { asNewGuest: 'clone2' });
    for (const guest of GUESTS) await save(guest, 'c');
    const uuids = new Map<string, string>();
    for (const guest of GUESTS) uuids.set(guest, (await client.getGuest(guest)).uuid);

    for (let lost = 1; lost < 1 << GUESTS.length; lost += 1) {
      const without = GUESTS.filter((_, index) => (lost & (1 << index)) !== 0);
      await t.test(`without those of ${without.join(', ')}`, async () => {
        for (const guest of GUESTS) {
          if ((await client.getGuest(guest)).state === 'stopped') await client.restoreSaveImage(guest, 'c');
          presents.set(guest, await change(guest));
          await client.stop(guest);
        }
        await lab.recordsWritten();
        await lab.endDaemon('SIGTERM');
        await loseCatalog(lab);
        for (const guest of without) await loseGuestFile(lab, uuids.get(guest) ?? '');
        const { leftOut, guests } = await rebuild(lab);
        assert.deepEqual(leftOut, []);
        assert.deepEqual(
          guests
            .filter(({ notes }) => notes.length > 0)
            .map(({ name }) => name)
            .toSorted(),
          without.toSorted(),
        );
        await lab.startDaemon();
        for (const guest of GUESTS) {
          await client.start(guest);
          assert.equal(
            (await contentOf(lab, guest)).disk,
            presents.get(guest)?.disk,
            `${guest} is on its own disk`,
          );
        }
        for (const [image, content] of images) {
          const [guest = '', name = ''] = image.split('/');
          await client.restoreSaveImage(guest, name);
          assert.deepEqual(await contentOf(lab, guest), content, `${image} restores exactly`);
        }
        for (const guest of GUESTS) await client.stop(guest);
        for (const guest of GUESTS) await checkHousekeeping(lab, guest);
      });
    }
  },
);
