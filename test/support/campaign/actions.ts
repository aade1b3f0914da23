/** What a user may do next, with what it must come to. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Guest } from '../../../src/client/index.ts';
import type { Lab } from '../lab.ts';
import type { Random } from '../random.ts';
import { changeContent, contentOf, type Content } from '../rules.ts';
import type { Ledger } from './ledger.ts';

const run = promisify(execFile);
export const GUEST = 'web1';
export const CLONE = 'copy';
export const DEFAULT = 'default';

export interface Action {
  /** for the table */
  readonly kind: string;
  readonly image?: string;
  act(): Promise<unknown>;
  /** the image that it makes, and that of this name it replaces */
  readonly makes?: Content;
  /** it removes the image, or may */
  readonly ends?: 'surely' | 'maybe';
  /** what the guest is when it is done: what it was, another content, or nothing known */
  readonly leaves: 'same' | 'stopped' | 'unknown' | Content;
}

export interface Situation {
  readonly lab: Lab;
  readonly random: Random;
  readonly ledger: Ledger;
  readonly state: Guest['state'];
  /** what the guest holds, when it is known */
  readonly content: Content | undefined;
  readonly images: readonly string[];
  /** for the name of the next image */
  readonly number: number;
}

/** All that can be done, as the guest is. */
export function actionsIn(situation: Situation): readonly Action[] {
  const { state, images, random } = situation;
  const image = images.length === 0 ? undefined : random.of(images);
  const power =
    state === 'running' ? running(situation) : state === 'paused' ? paused(situation) : stopped(situation);
  return [...power, ...always(situation), ...(image === undefined ? [] : withImage(situation, image))];
}

function running(situation: Situation): Action[] {
  const { client } = situation.lab;
  return [
    ...saves(situation),
    { kind: 'pause', act: () => client.pause(GUEST), leaves: 'same' },
    { kind: 'reset', act: () => client.reset(GUEST), leaves: 'unknown' },
    { kind: 'stop', act: () => client.stop(GUEST), leaves: 'stopped' },
    ...saveAll(situation),
  ];
}

function paused(situation: Situation): Action[] {
  const { client } = situation.lab;
  return [
    ...saves(situation),
    { kind: 'resume', act: () => client.resume(GUEST), leaves: 'same' },
    { kind: 'stop', act: () => client.stop(GUEST), leaves: 'stopped' },
    ...saveAll(situation),
  ];
}

function stopped({ lab: { client }, ledger, images }: Situation): Action[] {
  const [held] = ledger.held(DEFAULT);
  const image = images.includes(DEFAULT) ? ({ image: DEFAULT, ends: 'maybe' } as const) : {};
  const leaves =
    images.includes(DEFAULT) && ledger.held(DEFAULT).length === 1 && held !== undefined ? held : 'unknown';
  return [
    { kind: 'start', act: () => client.start(GUEST), ...image, leaves },
    { kind: 'start --fresh', act: () => client.start(GUEST, { fresh: true }), leaves: 'unknown' },
    { kind: 'host restore-all', act: () => client.restoreAll(), ...image, leaves: 'unknown' },
  ];
}

function saves({ lab: { client }, random, content, number }: Situation): Action[] {
  if (content === undefined) return [];
  const name = `image${number}`;
  const method = random.of([undefined, undefined, 'precopy', 'background'] as const);
  return [
    {
      ...{ kind: 'save --live', image: name, makes: content, leaves: 'same' },
      act: () =>
        client.createSaveImage(GUEST, { name, live: true, ...(method === undefined ? {} : { method }) }),
    },
    {
      ...{ kind: 'save', image: DEFAULT, makes: content, leaves: 'stopped' },
      act: () => client.createSaveImage(GUEST),
    },
  ];
}

function saveAll({ lab: { client }, content }: Situation): Action[] {
  if (content === undefined) return [];
  return [
    {
      ...{ kind: 'host save-all', image: DEFAULT, makes: content, leaves: 'stopped' },
      act: () => client.saveAll(),
    },
  ];
}

function always({ lab: { client } }: Situation): Action[] {
  return [{ kind: 'disk compact', act: () => client.compactDisks(GUEST), leaves: 'same' }];
}

function withImage({ lab, random, ledger, number, state, content }: Situation, image: string): Action[] {
  const { client } = lab;
  const [only, ...others] = ledger.held(image);
  const held: Action['leaves'] = only === undefined || others.length > 0 ? 'unknown' : only;
  const method = random.of([undefined, 'mapped', 'lazy', 'eager'] as const);
  const request = method === undefined ? {} : { method };
  const kept = `image${number}`;
  return [
    { kind: 'restore', image, act: () => client.restoreSaveImage(GUEST, image, request), leaves: held },
    {
      ...{ kind: 'restore --delete', image, ends: 'surely', leaves: held },
      act: () => client.restoreSaveImage(GUEST, image, { ...request, delete: true }),
    },
    {
      ...{ kind: 'restore --paused', image, leaves: held },
      act: () => client.restoreSaveImage(GUEST, image, { ...request, paused: true }),
    },
    ...(state === 'running' && content !== undefined
      ? [
          {
            ...{ kind: 'restore --save-current', image: kept, makes: content, leaves: held },
            act: () => client.restoreSaveImage(GUEST, image, { ...request, saveCurrent: kept }),
          },
        ]
      : []),
    {
      ...{ kind: 'restore --as', image, leaves: 'same' },
      act: () => client.restoreSaveImage(GUEST, image, { asNewGuest: CLONE }),
    },
    {
      kind: 'delete',
      image,
      ends: 'surely',
      act: () => client.deleteSaveImage(GUEST, image),
      leaves: 'same',
    },
    { kind: 'verify', image, act: () => client.verifySaveImage(GUEST, image), leaves: 'same' },
    { kind: 'export', image, act: () => look(lab, image), leaves: 'same' },
  ];
}

/**
 * A clone holds what the image does, goes on from there, and takes nothing with it when it goes. So does one that was left by
 * a restore that did not get to its end.
 */
export async function checkClone(lab: Lab, { state }: Guest, possible: readonly Content[]): Promise<void> {
  if (state === 'running' || state === 'paused') {
    await letRun(lab, CLONE);
    mustBeOneOf(await contentOf(lab, CLONE), possible, 'the clone');
    await changeContent(lab, CLONE, 1);
  }
  await removeClone(lab);
}

export async function removeClone({ client }: Lab): Promise<void> {
  await client.stop(CLONE);
  await client.undefineGuest(CLONE, { deleteImages: true });
}

/** What was saved standing still stands still. */
export async function letRun({ client }: Lab, guest: string): Promise<void> {
  if ((await client.getGuest(guest)).state === 'paused') await client.resume(guest);
}

/** A disk of an image is served, but can't be read: whoever serves it has been killed, or reads fail. */
export class UnreadableDisk extends Error {
  override readonly name = 'UnreadableDisk';
}

/** Opens the first disk of an image and reads of it what a header has. */
async function look(lab: Lab, image: string): Promise<void> {
  using held = await lab.client.exportDisk(GUEST, image, { disk: 'disk0' });
  try {
    await run('qemu-img', ['info', held.info.uri]);
  } catch (error) {
    throw new UnreadableDisk(`disk0 of ${image}`, { cause: error });
  }
}

export function mustBeOneOf(content: Content, possible: readonly Content[], what: string): void {
  const isKnown = possible.some(({ memory, disk }) => memory === content.memory && disk === content.disk);
  assert.ok(isKnown, `${what} holds ${JSON.stringify(content)}, not ${JSON.stringify(possible)}`);
}
