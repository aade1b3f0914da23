/** What the guest's display showed when an image was taken: for a person who chooses between images. */
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { getGuestByUuid } from '../catalog/guests.ts';
import { messageOf } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import type { Host } from '../guests/host.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import type { QemuProcess } from '../qemu/process/process.ts';
import { readQemusFile } from '../qemu/process/run-files.ts';
import type { WaitOptions } from '../qemu/wait.ts';
import type { Manifest } from './manifest.ts';
import { pngOf, readPpm } from './png.ts';

const SCREEN_FILE = 'screen.png';
const RAW_FILE = 'screen.ppm';
const TIMEOUT_MS = 5_000;
/** 8192 × 8192 points. */
const MAX_RAW_BYTES = 256 * 1024 ** 2;

/**
 * Takes the picture, in a step of its own, and makes it durable in the image's directory.
 * @returns null for a guest without a display, and when it can't be taken: no save fails for that, it is warned of
 */
export async function takeScreen(
  host: Host,
  guest: string,
  directory: string,
  operation: OperationHandle,
): Promise<NonNullable<Manifest['screen']> | null> {
  const { graphics } = storedDefinition(await getGuestByUuid(host.catalog, guest));
  if (graphics === 'none') return null;
  return operation.step('screen', async () => {
    try {
      return await storeScreen(host.supervisor.get(guest, operation.guestName), directory);
    } catch (error) {
      await rm(join(directory, SCREEN_FILE), { force: true });
      await operation.warn(`the image has no picture of the screen: ${messageOf(error)}`);
      return null;
    }
  });
}

async function storeScreen(
  process: QemuProcess,
  directory: string,
): Promise<NonNullable<Manifest['screen']>> {
  const picture = readPpm(await dumpScreen(process, { timeoutMs: TIMEOUT_MS }));
  const png = await pngOf(picture);
  await using file = await open(join(directory, SCREEN_FILE), 'w', 0o600);
  await file.writeFile(png);
  await file.sync();
  return { name: SCREEN_FILE, width: picture.width, height: picture.height, storedBytes: png.length };
}

/** What the first display shows now, as PPM: for a moment a file in its run directory. */
export async function dumpScreen(
  { qmp, runDirectory }: QemuProcess,
  options: WaitOptions = {},
): Promise<Buffer> {
  const raw = join(runDirectory, RAW_FILE);
  try {
    await qmp.execute('screendump', { filename: raw, format: 'ppm' }, options);
    return await readQemusFile(raw, MAX_RAW_BYTES);
  } finally {
    await rm(raw, { force: true }); // QEMU leaves it also when it fails
  }
}
