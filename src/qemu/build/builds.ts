/**
 * The QEMUs of this host: the usual one, which guests run by unless they say otherwise, and others by name. A path is looked at
 * whenever it is asked for: packages are upgraded under a running daemon.
 */
import { realpath, stat } from 'node:fs/promises';
import { StasisError } from '../../errors.ts';
import { describeQemu, refuseTooOld, type QemuBinary } from './binary.ts';

export class QemuBuilds {
  readonly #usual: string;
  readonly #startedBy: readonly string[];
  readonly #named: ReadonlyMap<string, string>;
  readonly #known = new Map<string, QemuBinary>();

  /** @param named their paths, by name */
  constructor(usual: QemuBinary, named: Readonly<Record<string, string>>) {
    this.#usual = usual.path;
    this.#startedBy = usual.startedBy;
    this.#named = new Map(Object.entries(named));
    this.#known.set(usual.path, usual);
  }

  /** Of all but the usual one. */
  get names(): readonly string[] {
    return [...this.#named.keys()];
  }

  /** Those that are there and new enough, the usual one (null) first. */
  async available(): Promise<{ readonly name: string | null; readonly binary: QemuBinary }[]> {
    const found = [null, ...this.names].map(async (name) => {
      try {
        return [{ name, binary: await this.get(name ?? undefined) }];
      } catch (error) {
        if (error instanceof StasisError) return [];
        throw error;
      }
    });
    return (await Promise.all(found)).flat();
  }

  /**
   * @param name undefined: the usual one
   * @throws StasisError `unsupported` when there is none of that name (`details.known`), `qemu-missing`, `qemu-too-old`
   */
  async get(name: string | undefined): Promise<QemuBinary> {
    const path = name === undefined ? this.#usual : this.#named.get(name);
    if (path === undefined) {
      throw new StasisError(
        'unsupported',
        `there is no QEMU build "${name}" on this host: name its program in stasis.yaml, \`qemu: {builds: {${JSON.stringify(name)}: /PATH/qemu-system-x86_64}}\`, and start the daemon anew`,
        { details: { build: name, known: this.names } },
      );
    }
    const known = this.#known.get(path);
    if (known !== undefined && (await isStillThere(known, path))) return known;
    const binary = { ...(await describeQemu(path)), startedBy: this.#startedBy };
    refuseTooOld(binary);
    this.#known.set(path, binary);
    return binary;
  }
}

async function isStillThere({ path, modifiedMs }: QemuBinary, asked: string): Promise<boolean> {
  try {
    return (await realpath(asked)) === path && (await stat(path)).mtimeMs === modifiedMs;
  } catch {
    return false; // what is wrong with it tells who describes it
  }
}
