/**
 * Which files QEMU may open, where it runs as a user of its own: those that the guest needs, and the ones it only reads it can't
 * write. A layer is the user's (of QEMU) while a guest writes to it, else ours with the user's group to read it. What is so can
 * be made so again at any time, also after a crash or an upgrade, and is before each start of a QEMU.
 *
 * Files that people brought get their owner, group and mode back when their guest leaves: written down before the first change.
 */
import { constants, type Stats } from 'node:fs';
import {
  chmod,
  chown,
  lchown,
  mkdir,
  open,
  readdir,
  realpath,
  rm,
  stat,
  type FileHandle,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { CatalogDatabase } from '../catalog/database.ts';
import { findOwner, forgetOwner, listOwners, rememberOwner, type FileOwner } from '../catalog/file-owners.ts';
import { chainOf, findLayer } from '../catalog/layers.ts';
import { errnoOf, StasisError } from '../errors.ts';
import type { QemuUser } from '../qemu/process/user.ts';
import { COPIES_DIRECTORY } from '../storage/reflink.ts';
import type { ChainLayer, MachineDisks } from './command-line.ts';
import type { Definition } from './definition.ts';

/** Whose a file is: made by Stasis, or brought by somebody. */
type Origin = 'ours' | 'brought';

export class Ownership {
  /** undefined: QEMU runs as the daemon does, and nothing here does anything */
  readonly user: QemuUser | undefined;
  readonly #catalog: CatalogDatabase;
  /** below it all directories are ours */
  readonly #data: string;

  constructor(options: {
    readonly catalog: CatalogDatabase;
    readonly data: string;
    readonly user: QemuUser | undefined;
  }) {
    this.user = options.user;
    this.#catalog = options.catalog;
    this.#data = options.data;
  }

  /** QEMU may read the file, and not write to it any more. A file that isn't there is told of by who opens it. */
  async letRead(path: string, origin: Origin): Promise<void> {
    await this.#change(path, origin, ({ uid: qemu, gid }, { uid, mode }, former) => {
      const isPublic = origin === 'brought' && uid !== qemu && (mode & 0o004) !== 0;
      return isPublic ? undefined : { uid: former?.uid ?? 0, gid, mode: (mode & ~0o020) | 0o440 };
    });
  }

  /** QEMU may write to the file. */
  async letWrite(path: string, origin: Origin): Promise<void> {
    await this.#change(path, origin, ({ uid, gid }, { mode }) => ({ uid, gid, mode: mode | 0o600 }));
  }

  /** The same for a layer of the catalog. */
  async letWriteLayer(layer: { readonly path: string; readonly root: number }): Promise<void> {
    await this.letWrite(layer.path, originOf(layer));
  }

  async letReadLayer(layer: { readonly path: string; readonly root: number }): Promise<void> {
    await this.letRead(layer.path, originOf(layer));
  }

  /** Everything that a machine opens at its start: what it writes to, what that stands on, and what it is booted from. */
  async letStart(definition: Definition, { chains }: MachineDisks): Promise<void> {
    if (this.user === undefined) return;
    for (const [head, ...below] of chains.values()) {
      if (head !== undefined) await this.letWrite(head.path, await this.#originOf(head));
      for (const layer of below) await this.letRead(layer.path, await this.#originOf(layer));
    }
    for (const { path, readonly } of definition.disks.filter(({ name }) => !chains.has(name)))
      await (readonly ? this.letRead(path, 'brought') : this.letWrite(path, 'brought'));
    for (const path of await bootFiles(definition)) await this.letRead(path, 'brought');
  }

  /** QEMU's tools may read a file that is no guest's yet, as long as `use` takes. What a crash leaves of that `tidy` gives back. */
  async whileRead<T>(path: string, use: () => Promise<T>): Promise<T> {
    if ((await findOwner(this.#catalog, path)) !== undefined) return this.explained(use());
    await this.letRead(path, 'brought');
    try {
      return await this.explained(use());
    } finally {
      await this.giveBack(path);
    }
  }

  /** What QEMU or its tools may not open is most likely below a directory that is closed to others: says so. */
  async explained<T>(doing: Promise<T>): Promise<T> {
    try {
      return await doing;
    } catch (error) {
      const { code, message, details } = StasisError.from(error);
      if (this.user === undefined || !/permission denied/i.test(message)) throw error;
      const name = this.user.name ?? this.user.uid;
      throw new StasisError(
        code,
        `${message}. QEMU runs as user ${name}: let it through each directory above that file (chmod o+x), or choose another by qemu.user in stasis.yaml`,
        { cause: error, details },
      );
    }
  }

  /** A layer and all that it stands on. */
  async letReadChain(layer: string): Promise<void> {
    if (this.user === undefined) return;
    for (const each of await chainOf(this.#catalog, layer)) await this.letReadLayer(each);
  }

  /** An empty file that QEMU will write, in a directory where it can make none. */
  async makeEmpty(path: string): Promise<void> {
    if (this.user === undefined) return;
    await rm(path, { force: true });
    await (await open(path, 'wx', 0o600)).close();
    await this.letWrite(path, 'ours');
  }

  /** A directory in which QEMU makes files as we do, and can't touch ours (sticky); what we let its group read, it can (setgid). */
  async makeShared(directory: string): Promise<void> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (this.user === undefined) return;
    await chown(directory, 0, this.user.gid);
    await chmod(directory, 0o3770);
  }

  /** A directory that is QEMU's alone, with what is in it. */
  async makeTheirs(directory: string): Promise<void> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (this.user === undefined) return;
    const { uid, gid } = this.user;
    await this.#openDirectories(directory);
    if ((await stat(directory)).uid === uid) return;
    // What a TPM that ran as root has left. Theirs it is last, so that nobody else can put anything there meanwhile.
    for (const name of await readdir(directory)) await lchown(join(directory, name), uid, gid);
    await chown(directory, uid, gid);
  }

  /** QEMU's group may use a device of the host's, when it is there. */
  async letUse(device: string): Promise<void> {
    const { user } = this;
    if (user === undefined) return;
    await asFarAsPossible(async () => {
      await chown(device, 0, user.gid);
      await chmod(device, 0o660);
    }, ['ENOENT']);
  }

  /** QEMU may go through a directory, and see nothing of what it holds. */
  async letThrough(directory: string): Promise<void> {
    const { user } = this;
    if (user === undefined) return;
    const { gid, mode } = await stat(directory);
    await asFarAsPossible(async () => {
      if (gid !== user.gid) await chown(directory, 0, user.gid);
      if ((mode & 0o010) === 0) await chmod(directory, (mode & 0o7777) | 0o010);
    });
  }

  /** A file that somebody brought is theirs again, as it was. Repeatable; also when there is no such user any more. */
  async giveBack(path: string): Promise<void> {
    const former = await findOwner(this.#catalog, path);
    if (former === undefined) return;
    await using file = await openItself(path);
    if (file !== undefined) await setOwner(file, former);
    await forgetOwner(this.#catalog, path);
  }

  /** Gives back what no guest has any more. @param inUse paths of what guests have */
  async giveBackAllBut(inUse: ReadonlySet<string>): Promise<void> {
    for (const { path } of await listOwners(this.#catalog)) if (!inUse.has(path)) await this.giveBack(path);
  }

  async #change(
    path: string,
    origin: Origin,
    wish: (user: QemuUser, now: Stats, former: FileOwner | undefined) => Owner | undefined,
  ): Promise<void> {
    if (this.user === undefined) return;
    await this.#openDirectories(path);
    await using file = await openItself(path);
    if (file === undefined) return;
    const now = await file.stat();
    if (!now.isFile() && !now.isBlockDevice()) return;
    const known = origin === 'brought' ? await findOwner(this.#catalog, path) : undefined;
    const { uid, gid, mode } = now;
    const wanted = wish(
      this.user,
      now,
      known ?? (origin === 'brought' ? { path, uid, gid, mode } : undefined),
    );
    if (wanted === undefined || isSame(wanted, now)) return;
    if (origin === 'brought' && known === undefined)
      await rememberOwner(this.#catalog, { path, uid, gid, mode: mode & 0o7777 });
    await setOwner(file, wanted);
  }

  async #originOf({ id }: ChainLayer): Promise<Origin> {
    return originOf((await findLayer(this.#catalog, id)) ?? { root: 0 });
  }

  async #openDirectories(path: string): Promise<void> {
    for (const directory of this.#ownDirectories(path)) await this.letThrough(directory);
  }

  #ownDirectories(path: string): string[] {
    const directory = dirname(path);
    if (basename(dirname(directory)) === COPIES_DIRECTORY) return [dirname(directory), directory];
    if (!path.startsWith(`${this.#data}/`)) return [];
    return directory === this.#data ? [directory] : [...this.#ownDirectories(directory), directory];
  }
}

/** All that a definition names on this host. */
export async function broughtFiles(definition: Definition): Promise<readonly string[]> {
  return [...definition.disks.map(({ path }) => path), ...(await bootFiles(definition))];
}

/** What only ever is read. Distributions name the newest kernel by a link. */
async function bootFiles({ boot, firmware }: Definition): Promise<readonly string[]> {
  const code = firmware === 'bios' ? [] : [firmware.code.path];
  const named = [boot?.kernel, boot?.initrd, ...code].filter((path) => path !== undefined);
  return Promise.all(named.map((path) => realpath(path).catch(() => path)));
}

interface Owner {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

function originOf({ root }: { readonly root: number }): Origin {
  return root === 1 ? 'brought' : 'ours';
}

function isSame(wanted: Owner, now: Stats): boolean {
  return wanted.uid === now.uid && wanted.gid === now.gid && (wanted.mode & 0o7777) === (now.mode & 0o7777);
}

/** Names of devices are links, those of files have none (define.ts resolves them): one that is there now was put there since. */
async function openItself(path: string): Promise<FileHandle | undefined> {
  const noLink = path.startsWith('/dev/') ? 0 : constants.O_NOFOLLOW;
  try {
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK | noLink);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    if (errnoOf(error) === 'ELOOP')
      throw new StasisError('disk-changed', `somebody put a link in the place of ${path}`, {
        details: { path },
        cause: error,
      });
    throw error;
  }
}

/** Some file systems have no owners, and on some root is nobody: there QEMU says itself what it can't open. */
const CANNOT_BE_CHANGED = ['EPERM', 'EROFS', 'EINVAL', 'ENOTSUP'];

async function setOwner(file: FileHandle, { uid, gid, mode }: Owner): Promise<void> {
  await asFarAsPossible(async () => {
    await file.chown(uid, gid);
    await file.chmod(mode & 0o7777);
  });
}

async function asFarAsPossible(change: () => Promise<void>, alsoFine: readonly string[] = []): Promise<void> {
  try {
    await change();
  } catch (error) {
    if (![...CANNOT_BE_CHANGED, ...alsoFine].includes(errnoOf(error) ?? '')) throw error;
  }
}
