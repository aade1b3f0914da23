/**
 * What every start of the daemon does after recovery: anything on disk that the catalog doesn't know is removed,
 * anything that should be gone is, and every layer that nothing holds is collected later, by the next operation on
 * its guest. Only Stasis's own directories are looked at, and what drivers made elsewhere for guests of this home.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DriverName } from '../api/constants.ts';
import { listGuests, type GuestRecord } from '../catalog/guests.ts';
import { listLayers, type LayerRecord } from '../catalog/layers.ts';
import { namesIn } from '../directory.ts';
import { messageOf } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { guestDirectory, placeOf } from '../guests/disks.ts';
import type { Host } from '../guests/host.ts';
import { removeGuestDirectory } from '../guests/tpm.ts';
import { broughtFiles } from '../guests/ownership.ts';
import { forget } from './delete.ts';

/** @returns what was removed */
export async function tidy(host: Host): Promise<string[]> {
  const removed: string[] = [];
  const remove = async (path: string) => {
    await rm(path, { recursive: true, force: true });
    removed.push(path);
  };
  const guests = await listGuests(host.catalog);
  const layerRecords = await listLayers(host.catalog);
  const layers = new Set(layerRecords.map((layer) => layer.path));
  const images = await host.catalog.selectFrom('images').select(['id', 'guest', 'state']).execute();
  for (const image of images) if (image.state === 'deleting') await forget(host, image.guest, image.id);

  const known = new Set(images.filter((image) => image.state !== 'deleting').map((image) => image.id));
  for (const uuid of await namesIn(join(host.paths.data, 'guests'))) {
    const directory = guestDirectory(host.paths.data, uuid);
    const guest = guests.find((candidate) => candidate.uuid === uuid);
    if (guest === undefined) {
      await removeGuestDirectory(host.paths.data, uuid);
      removed.push(directory.root);
      continue;
    }
    const definition = storedDefinition(guest);
    const places = definition.disks.map(({ name }) =>
      placeOf(host, { definition, data: host.paths.data }, name),
    );
    for (const place of new Set([directory.layers, ...places.map((each) => each.directory)]))
      for (const name of await namesIn(place))
        if (!layers.has(join(place, name))) await remove(join(place, name));
    for (const id of await namesIn(directory.images))
      if (!known.has(id)) await remove(join(directory.images, id));
  }

  for (const driver of new Set(layerRecords.map((layer) => layer.driver)))
    removed.push(...(await removeStrays(host, driver, guests, layerRecords)));

  const instances = new Set(
    guests.flatMap((guest) =>
      guest.instance === null ? [] : [host.supervisor.instanceDirectory(guest.instance)],
    ),
  );
  for (const name of await namesIn(join(host.paths.run, 'guests'))) {
    if (!instances.has(join(host.paths.run, 'guests', name))) await host.supervisor.discard(name);
  }
  const brought = await Promise.all(guests.map((guest) => broughtFiles(storedDefinition(guest))));
  const roots = layerRecords.filter(({ root }) => root === 1).map(({ path }) => path);
  await host.ownership.giveBackAllBut(new Set([...brought.flat(), ...roots]));

  for (const path of removed) host.log.warn({ path }, 'removed what no operation left on purpose');
  return removed;
}

/** What can't be removed, or can't be seen since its storage doesn't answer, is left to the next start. */
async function removeStrays(
  { drivers, log }: Host,
  name: DriverName,
  guests: readonly GuestRecord[],
  layers: readonly LayerRecord[],
): Promise<string[]> {
  const known = layers.filter(({ driver }) => driver === name);
  const removed: string[] = [];
  try {
    for (const { uuid } of guests)
      removed.push(...((await drivers.get(name).removeStrays?.(uuid, known)) ?? []));
  } catch (error) {
    log.warn(
      { driver: name, error: messageOf(error) },
      'what no operation left on purpose could not be removed',
    );
  }
  return removed;
}
