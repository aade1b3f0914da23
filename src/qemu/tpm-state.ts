/**
 * What a capture holds of a TPM, and whether that makes a TPM again. One that could not store what it had to, as its disk was
 * full, fails from then on, until it is reset; it is captured like that without a complaint, and no QEMU loads it.
 */
import { open } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { StasisError, messageOf } from '../errors.ts';
import { connectTo, readBytes } from './guest-socket.ts';
import type { MemoryFile } from './memory/memory-file.ts';
import { u32 } from './memory/migration-stream.ts';
import { waitFor } from './wait.ts';

/** One of the three that a TPM is made of, in the order in which QEMU has and sets them: permanent, volatile, saved by the guest. */
export interface TpmBlob {
  readonly flags: number;
  readonly data: Buffer;
}

/** QEMU's name of it in the stream, after its length. */
const SECTION_NAME = Buffer.concat([Buffer.from([12]), Buffer.from('tpm-emulator')]);
/** The number of the instance and the version of the format. */
const SECTION_HEAD_BYTES = 8;
const BLOBS = 3;
const TIMEOUT_MS = 10_000;

/** swtpm's `tpm_ioctl.h`; all numbers big-endian. */
const COMMAND = { init: 2, setStateBlob: 13, stop: 14 } as const;
/** What was set of it is used once, as QEMU does. */
const DELETE_VOLATILE = 1;

/**
 * Reads a TPM's state from a capture's device states (QEMU's `vmstate_tpm_emulator`: for each blob u32 flags, u32 size, contents).
 * @throws StasisError `image-damaged` when it isn't there, or cut short; `storage-failed`, Node's system errors
 */
export async function readTpmState(
  path: string,
  { deviceStateOffset: from, devicesEnd: to }: Pick<MemoryFile, 'deviceStateOffset' | 'devicesEnd'>,
): Promise<readonly TpmBlob[]> {
  await using file = await open(path, 'r');
  const states = Buffer.alloc(to - from);
  const { bytesRead } = await file.read(states, 0, states.length, from);
  const name = bytesRead === states.length ? states.indexOf(SECTION_NAME) : -1;
  const blobs = name === -1 ? [] : blobsIn(states, name + SECTION_NAME.length + SECTION_HEAD_BYTES);
  if (blobs.length === BLOBS) return blobs;
  throw new StasisError('image-damaged', `the memory file ${path} has no whole state of a TPM`);
}

/** Those that are there whole. */
function blobsIn(states: Buffer, from: number): readonly TpmBlob[] {
  const blobs: TpmBlob[] = [];
  let at = from;
  while (blobs.length < BLOBS && at + 8 <= states.length) {
    const [flags, size] = [states.readUInt32BE(at), states.readUInt32BE(at + 4)];
    const data = states.subarray(at + 8, at + 8 + size);
    if (data.length < size) break;
    blobs.push({ flags, data });
    at += 8 + size;
  }
  return blobs;
}

/**
 * Gives a fresh TPM a state, as QEMU does when it loads it, and has it begin.
 * @param socket where the TPM listens, which has no other client
 * @returns the TPM's error if it can't: 0x101 is a TPM that had failed before
 * @throws StasisError `qemu-failed` when it doesn't answer, `timeout`, `cancelled`
 */
export async function tryTpmState(
  socket: string,
  blobs: readonly TpmBlob[],
  signal: AbortSignal,
): Promise<number | undefined> {
  let connection: Socket | undefined;
  try {
    connection = await connectTo(socket);
    return await waitFor('an answer of swtpm', setAndBegin(connection, blobs), {
      signal,
      timeoutMs: TIMEOUT_MS,
    });
  } catch (error) {
    if (error instanceof StasisError) throw error;
    throw new StasisError('qemu-failed', `swtpm ended when it was tried: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    connection?.destroy();
  }
}

async function setAndBegin(connection: Socket, blobs: readonly TpmBlob[]): Promise<number | undefined> {
  const ask = async (command: number, ...parts: readonly (number | Buffer)[]) => {
    connection.write(
      Buffer.concat([command, ...parts].map((part) => (Buffer.isBuffer(part) ? part : u32(part)))),
    );
    return (await readBytes(connection, 4, AbortSignal.timeout(TIMEOUT_MS))).readUInt32BE();
  };
  let error = await ask(COMMAND.stop);
  for (const [index, { flags, data }] of blobs.entries())
    if (error === 0 && data.length > 0)
      error = await ask(COMMAND.setStateBlob, flags, index + 1, data.length, data);
  if (error === 0) error = await ask(COMMAND.init, DELETE_VOLATILE);
  return error === 0 ? undefined : error;
}
