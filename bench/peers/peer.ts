/**
 * What is measured: Stasis, and what somebody would use in its place. All run the same guest, two qcow2 disks and the
 * same QEMU, and each is asked in its own way for the same things.
 */
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { execFile } from 'node:child_process';
import { Witness } from '../../test/support/witness.ts';

export type PeerName = 'Stasis' | 'Stasis, huge pages' | 'bare QMP' | 'libvirt';

export interface LiveSave {
  /** STOP → RESUME by QEMU's own clock */
  readonly pauseMs: number;
  /** until the command has returned */
  readonly saveMs: number;
  readonly storedBytes: number;
  /** what was said beforehand, by who says something */
  readonly predictedPauseMs?: number | undefined;
  /** how it was done, by who has several ways */
  readonly method?: string | undefined;
}

export interface StoppedSave {
  readonly saveMs: number;
  readonly storedBytes: number;
}

/** A peer with its one guest. It keeps one live and one stopping save at a time. Disposing ends it and its guest. */
export interface Peer extends AsyncDisposable {
  readonly name: PeerName;
  /** Makes the guest and starts it. */
  boot(): Promise<void>;
  /** The guest's QEMU. */
  pid(): Promise<number>;
  /** The guest's console, QEMU's own socket of it: nobody stands between. */
  witness(): Promise<Witness>;
  /** Saves live, both disks included. An aborted save is taken back, and rejects. */
  saveLive(signal: AbortSignal): Promise<LiveSave>;
  /** Puts the guest back to the live save, which stays. Resolves when it runs. */
  restoreLive(): Promise<void>;
  /** Removes the live save. The disks are as many layers as before then. */
  dropLive(): Promise<void>;
  /** Saves and stops. */
  saveAndStop(): Promise<StoppedSave>;
  /** Goes on from there, and removes what was saved. */
  startAgain(): Promise<void>;
}

/** Runs a program to its end. Its error has what it wrote. */
export const run = promisify(execFile);

export async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const begin = performance.now();
  const result = await work();
  return { ms: performance.now() - begin, result };
}

/** @param socket path of QEMU's socket of the serial port */
export async function connectWitness(socket: string): Promise<Witness> {
  const witness = await Witness.connect(socket);
  await witness.ping(60_000);
  return witness;
}

/** What a process has written so far, by write(2) and its kind, to wherever: proc_pid_io(5). */
export async function writtenBytes(pid: number): Promise<number> {
  return Number(/^wchar: (\d+)$/m.exec(await readFile(`/proc/${pid}/io`, 'utf8'))?.[1]);
}

/** Whoever can't keep up with a guest would go on for ever. */
const GIVE_UP_MS = 30_000;
export const GAVE_UP = `gave up after ${GIVE_UP_MS / 1000} s`;

/** @returns undefined when it was given up */
export async function saveOrGiveUp(peer: Peer): Promise<LiveSave | undefined> {
  const signal = AbortSignal.timeout(GIVE_UP_MS);
  try {
    return await peer.saveLive(signal);
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}
