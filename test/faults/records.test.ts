/**
 * The daemon dies after a commit and before the records say so, and the catalog is lost with it. What is made again from older
 * records may lack what was under way, and nothing that it lists as ready restores to anything else than what was saved.
 * `STASIS_FAULTS=all` walks all cases and stops before either record; the tests walk one of each kind of record, before that.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Lab } from '../support/lab.ts';
import { loseCatalog, loseGuestFile, rebuild } from '../support/recovery.ts';
import { changeContent, checkHousekeeping, contentOf, type Content } from '../support/rules.ts';

const GUEST = 'web1';

type RecordOf = 'guest' | 'image';

interface Case {
  readonly name: string;
  /** before whose record it dies */
  readonly before: RecordOf;
  /** from a guest that runs, with the images `kept` and `other` */
  readonly run: (lab: Lab) => Promise<unknown>;
  readonly prepare?: (lab: Lab) => Promise<unknown>;
  /** what it may end */
  readonly loses?: string;
}

const CASES: readonly Case[] = [
  {
    name: 'live save',
    before: 'guest',
    run: ({ client }) => client.createSaveImage(GUEST, { name: 'new', live: true }),
  },
  { name: 'save', before: 'image', run: ({ client }) => client.createSaveImage(GUEST, { name: 'new' }) },
  { name: 'restore', before: 'guest', run: ({ client }) => client.restoreSaveImage(GUEST, 'kept') },
  {
    name: 'start from an image that it ends',
    before: 'image',
    run: ({ client }) => client.start(GUEST),
    prepare: ({ client }) => client.createSaveImage(GUEST),
    loses: 'default',
  },
  {
    name: 'delete in the middle',
    before: 'guest',
    run: ({ client }) => client.deleteSaveImage(GUEST, 'other'),
    loses: 'other',
  },
];

let lab: Lab;
let seed = 50;
const expected = new Map<string, Content>();

before(async () => {
  lab = await Lab.create();
  await using witness = await lab.running(GUEST, { system: 'bare', disks: 1 });
  await witness.fill(3, 2);
});
after(() => lab[Symbol.asyncDispose]());

const RECORDS = ['guest', 'image'] as const;
const isCampaign = process.env['STASIS_FAULTS'] === 'all';
const WALKED = isCampaign
  ? CASES
  : CASES.filter(({ name }) => ['save', 'delete in the middle'].includes(name));

/** Beside the catalog: nothing, or the record of the guest. */
const LOST = ['', ' with guest.json'] as const;

for (const { name, before: usual, prepare, run, loses } of WALKED)
  for (const [record, also] of isCampaign
    ? RECORDS.flatMap((each) => LOST.map((lost) => [each, lost] as const))
    : [[usual, ''] as const])
    test(`${name}: killed before the record of the ${record} is written, and the catalog is lost${also}`, async () => {
      await plant();
      await prepare?.(lab);
      const { uuid } = await lab.client.getGuest(GUEST);
      await lab.recordsWritten();
      await lab.failAt(`records/${record}:before=kill`);
      const outcome = run(lab).then(
        () => 'done',
        () => 'failed',
      );
      await lab.daemonEnded();
      await outcome;
      await lab.failAt();
      await loseCatalog(lab);
      if (also !== '') await loseGuestFile(lab, uuid);
      await rebuild(lab);
      await lab.startDaemon();
      await check(loses);
    });

/** A guest that runs on `other`, after `kept`. */
async function plant(): Promise<void> {
  const { client } = lab;
  for (const { name } of await client.listSaveImages(GUEST))
    if (name !== 'kept') await client.deleteSaveImage(GUEST, name);
  if (expected.has('kept')) await client.restoreSaveImage(GUEST, 'kept');
  for (const name of expected.has('kept') ? ['other'] : ['kept', 'other']) {
    expected.set(name, await change());
    await client.createSaveImage(GUEST, { name, live: true });
  }
  const present = await change();
  for (const name of ['new', 'default']) expected.set(name, present);
}

function change(): Promise<Content> {
  seed += 1;
  return changeContent(lab, GUEST, seed);
}

async function check(loses: string | undefined): Promise<void> {
  const { client } = lab;
  await checkHousekeeping(lab, GUEST);
  const { state } = await client.getGuest(GUEST);
  if (state === 'running') await contentOf(lab, GUEST);
  const images = await client.listSaveImages(GUEST);
  for (const name of ['kept', 'other'])
    assert.ok(
      name === loses || images.some((image) => image.name === name && image.state === 'ready'),
      `${name} is there`,
    );
  for (const image of images.filter((each) => each.state === 'ready')) {
    await client.restoreSaveImage(GUEST, image.name);
    assert.deepEqual(await contentOf(lab, GUEST), expected.get(image.name), `${image.name} restores exactly`);
  }
  await checkHousekeeping(lab, GUEST);
}
