import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findQemu, type QemuBinary } from '../../src/qemu/build/binary.ts';
import { ImageTool } from '../../src/qemu/block/image-tool.ts';
import { killQemu, launchQemu, type QemuProcess } from '../../src/qemu/process/process.ts';
import { readMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { STREAM_OFFSET } from '../../src/qemu/migration.ts';
import type { QmpClient } from '../../src/qemu/qmp/client.ts';
import type { SavedMemory } from '../../src/qemu/restore/restore.ts';
import { dirtierRom, LAST_PAGE } from './dirtier.ts';

export const run = promisify(execFile);
export const MEMORY_BYTES = 64 << 20;

/** A place for one test: files, mounts and QEMU processes, all gone when the test ends, however it ends. */
export class Lab implements AsyncDisposable {
  readonly directory: string;
  readonly binary: QemuBinary;
  readonly images: ImageTool;
  readonly #runDirectories: string[] = [];
  readonly #mounts: string[] = [];

  private constructor(directory: string, binary: QemuBinary) {
    this.directory = directory;
    this.binary = binary;
    this.images = new ImageTool(binary.imageToolPath);
  }

  static async open(): Promise<Lab> {
    const binary = await findQemu();
    return new Lab(await mkdtemp(join(tmpdir(), 'stasis-qemu-')), binary);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  runDirectory(name: string): string {
    const path = this.path(name);
    this.#runDirectories.push(path);
    return path;
  }

  /**
   * A guest without an operating system: its firmware dirties memory for ever, see dirtier.ts. It has done so once when
   * this returns, unless it waits for a migration: memory that is all zeros is no guest's, to whoever verifies a capture.
   */
  async launch(name: string, args: readonly string[] = []): Promise<QemuProcess> {
    const rom = this.path('dirtier.rom');
    await writeFile(rom, dirtierRom());
    const process = await launchQemu({
      binary: this.binary.path,
      runDirectory: this.runDirectory(name),
      args: [
        ...['-accel', 'tcg', '-machine', 'pc-q35-10.0', '-m', String(MEMORY_BYTES >> 20)],
        ...BARE,
        '-bios',
        rom,
        ...args,
      ],
    });
    if (!args.includes('-incoming')) await fillMemory(process.qmp, this.path(`${name}-word`));
    return process;
  }

  /** An empty overlay on the disk with the given file. */
  async overlay(name: string, backing: string, virtualSizeBytes = DISK_BYTES): Promise<string> {
    const path = this.path(name);
    await this.images.createOverlay({ path, backing, backingFormat: 'qcow2', virtualSizeBytes });
    return path;
  }

  async disk(name: string): Promise<string> {
    const path = this.path(name);
    await this.images.createDisk({ path, format: 'qcow2', virtualSizeBytes: DISK_BYTES });
    return path;
  }

  async mountTmpfs(name: string, sizeBytes: number): Promise<string> {
    const path = this.path(name);
    await mkdir(path);
    await run('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'tmpfs', path]);
    this.#mounts.push(path);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const runDirectory of this.#runDirectories) await killQemu(runDirectory, { graceMs: 0 });
    for (const mount of this.#mounts) await run('umount', [mount]);
    await rm(this.directory, { recursive: true, force: true });
  }
}

export const DISK_BYTES = 16 << 20;
const BARE = ['-nodefaults', '-no-user-config', '-display', 'none'];

/** A virtio disk whose node and device have names. */
export function diskArgs(device: string, node: string, path: string): readonly string[] {
  const blockdev = `driver=qcow2,node-name=${node},discard=unmap,file.driver=file,file.filename=${path}`;
  return ['-blockdev', blockdev, '-device', `virtio-blk-pci,drive=${node},id=${device}`];
}

/** The guest's memory, read through QEMU. Pause the guest first. */
export async function memoryOf(qmp: QmpClient, file: string): Promise<Buffer> {
  await qmp.execute('pmemsave', { val: 0, size: MEMORY_BYTES, filename: file });
  const memory = await readFile(file);
  await rm(file);
  return memory;
}

/** Waits until the guest without a system has gone through its memory once, so that there is something to write. */
async function fillMemory(qmp: QmpClient, file: string): Promise<void> {
  for (;;) {
    await qmp.execute('pmemsave', { val: LAST_PAGE, size: 4, filename: file });
    if ((await readFile(file)).readUInt32LE() > 0) return;
  }
}

/** A memory file as a restore method wants it. */
export async function savedMemory(file: string): Promise<SavedMemory> {
  return { file, memory: await readMemoryFile(file, STREAM_OFFSET) };
}
