import { spawn } from 'node:child_process';
import { once } from 'node:events';
import Type, { type Static } from 'typebox';
import Value from 'typebox/value';
import { StasisError } from '../../errors.ts';
import { ENDING_WITH_US } from '../../ending-with-us.ts';
import { throwIfAborted } from '../wait.ts';

/** JSON of a deep chain or a fragmented map stays far below. */
const MAX_OUTPUT_BYTES = 16 << 20;
const MAX_ERROR_BYTES = 64 << 10;
/** Of a report that can't be read, so much is told. */
const MAX_TOLD_CHARS = 1000;

export type DiskFormat = 'qcow2' | 'raw';

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

/**
 * What `qemu-img` says in JSON; only the members that we read. Some of it stands in the header of the file, and is whatever
 * its author made it.
 */
export const REPORTS = {
  info: Type.Object({
    format: Type.String(),
    'virtual-size': Count,
    'actual-size': Type.Optional(Count),
    'backing-filename': Type.Optional(Type.String()),
    'backing-filename-format': Type.Optional(Type.String()),
    'format-specific': Type.Optional(
      Type.Object({ data: Type.Object({ 'data-file': Type.Optional(Type.String()) }) }),
    ),
  }),
  check: Type.Object({
    corruptions: Type.Optional(Count),
    leaks: Type.Optional(Count),
    'check-errors': Type.Optional(Count),
  }),
  measure: Type.Object({ required: Count, 'fully-allocated': Count }),
} as const;
type ReportName = keyof typeof REPORTS;

export type DiskImageInfo = Static<typeof REPORTS.info>;

export interface DiskCheck {
  readonly isClean: boolean;
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
}

export interface DiskSizes {
  readonly requiredBytes: number;
  readonly fullyAllocatedBytes: number;
}

export interface ToolOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface LongToolOptions extends ToolOptions {
  /** Called with 0 … 1. */
  readonly onProgress?: ((done: number) => void) | undefined;
}

/**
 * `qemu-img` (https://www.qemu.org/docs/master/tools/qemu-img.html), for disks that no running guest writes to.
 * Every method throws StasisError `storage-failed` with the tool's own words, `no-space`, `cancelled` (the tool is
 * ended then; what it wrote is the caller's to remove), or `qemu-missing`. Formats are always told, never probed: a
 * guest that writes a qcow2 header into its raw disk must not get at other files. What a file says is read without rights, where
 * there is a user for that: the files must be let to it first.
 */
export class ImageTool {
  readonly #binary: string;
  readonly #startedBy: readonly string[];

  /**
   * @param binary path of `qemu-img`
   * @param startedBy what becomes it (process/user.ts) where it opens a disk; what is made is made by us
   */
  constructor(binary: string, startedBy: readonly string[] = []) {
    this.#binary = binary;
    this.#startedBy = startedBy;
  }

  /**
   * @param options.inUse a running guest has it open: read without a lock; sizes may be about to change
   * @param options.format when absent it is probed: only for a file that no guest ever wrote to
   */
  async info(
    path: string,
    options: ToolOptions & { readonly inUse?: boolean; readonly format?: DiskFormat } = {},
  ): Promise<DiskImageInfo> {
    return await this.#report(
      'info',
      ['--output=json', ...lockFree(options.inUse), ...flag('-f', options.format), '--', path],
      options,
    );
  }

  /**
   * Makes an empty overlay. The backing file isn't opened (`-u`), so it may be in use.
   * @param overlay.backing as it shall stand in the header: absolute, or relative to the overlay
   */
  async createOverlay(
    overlay: {
      readonly path: string;
      readonly backing: string;
      readonly backingFormat: DiskFormat;
      readonly virtualSizeBytes: number;
    },
    options: ToolOptions = {},
  ): Promise<void> {
    const { path, backing, backingFormat, virtualSizeBytes } = overlay;
    const backingArgs = ['-u', '-b', backing, '-F', backingFormat];
    await this.#make(
      ['create', '-q', '-f', 'qcow2', ...QCOW2_OPTIONS, ...backingArgs, '--', path, String(virtualSizeBytes)],
      options,
    );
  }

  /** Makes an empty disk. */
  async createDisk(
    disk: { readonly path: string; readonly format: DiskFormat; readonly virtualSizeBytes: number },
    options: ToolOptions = {},
  ): Promise<void> {
    const formatOptions = disk.format === 'qcow2' ? QCOW2_OPTIONS : [];
    await this.#make(
      ['create', '-q', '-f', disk.format, ...formatOptions, '--', disk.path, String(disk.virtualSizeBytes)],
      options,
    );
  }

  /** Writes what `top` (qcow2) holds into `base`, a layer below it. `top` keeps its contents (`-d`), to repeat is safe. */
  async commit(
    merge: { readonly top: string; readonly base: string },
    options: LongToolOptions = {},
  ): Promise<void> {
    await this.#run(['commit', '-d', '-f', 'qcow2', '-b', merge.base, '-p', '--', merge.top], options);
  }

  /**
   * Puts another layer below `path` (qcow2). Safely: copies first what would read differently. With `unsafe`: only
   * the header is changed, for when the caller knows that both read the same.
   */
  async rebase(
    change: {
      readonly path: string;
      /** Absent: no backing file at all. */
      readonly backing?: string | undefined;
      readonly backingFormat?: DiskFormat | undefined;
      readonly unsafe: boolean;
    },
    options: LongToolOptions = {},
  ): Promise<void> {
    const how = change.unsafe ? ['-u'] : ['-p'];
    const format = flag('-F', change.backingFormat);
    await this.#run(
      ['rebase', ...how, '-f', 'qcow2', '-b', change.backing ?? '', ...format, '--', change.path],
      options,
    );
  }

  /** Reads the image's own bookkeeping. Leaks only waste space; corruptions are damage. Repairs nothing. */
  async check(path: string, format: DiskFormat, options: ToolOptions = {}): Promise<DiskCheck> {
    if (format === 'raw') return { isClean: true, corruptions: 0, leaks: 0, checkErrors: 0 }; // nothing to check
    const report = await this.#report(
      'check',
      ['--output=json', '-f', format, '--', path],
      options,
      [2, 3], // corruptions, leaks
    );
    const { corruptions = 0, leaks = 0, 'check-errors': checkErrors = 0 } = report;
    return { isClean: corruptions + leaks + checkErrors === 0, corruptions, leaks, checkErrors };
  }

  /** Copies what a disk reads as into a new, single file; zeros become holes. */
  async convert(
    copy: {
      readonly from: string;
      readonly fromFormat: DiskFormat;
      readonly to: string;
      readonly toFormat: DiskFormat;
    },
    options: LongToolOptions = {},
  ): Promise<void> {
    await this.#run(
      ['convert', '-p', '-f', copy.fromFormat, '-O', copy.toFormat, '--', copy.from, copy.to],
      options,
    );
  }

  /** Whether two disks read the same; a longer one must be zero beyond the shorter one's end. */
  async compare(
    a: { readonly path: string; readonly format: DiskFormat },
    b: { readonly path: string; readonly format: DiskFormat },
    options: LongToolOptions = {},
  ): Promise<boolean> {
    const args = ['compare', '-p', '-f', a.format, '-F', b.format, '--', a.path, b.path];
    return (await this.#tool(args, options, [1], this.#startedBy)).status === 0;
  }

  /** How many bytes a copy in `toFormat` would take. */
  async measure(
    path: string,
    format: DiskFormat,
    toFormat: DiskFormat,
    options: ToolOptions & { readonly inUse?: boolean } = {},
  ): Promise<DiskSizes> {
    const args = ['--output=json', ...lockFree(options.inUse), '-f', format, '-O', toFormat, '--', path];
    const sizes = await this.#report('measure', args, options);
    return { requiredBytes: sizes.required, fullyAllocatedBytes: sizes['fully-allocated'] };
  }

  async #report<N extends ReportName>(
    name: N,
    args: readonly string[],
    options: ToolOptions,
    goodStatuses: readonly number[] = [],
  ): Promise<Static<(typeof REPORTS)[N]>> {
    const { stdout } = await this.#tool([name, ...args], options, goodStatuses, this.#startedBy);
    return readReport(name, stdout);
  }

  async #run(args: readonly string[], options: LongToolOptions): Promise<void> {
    await this.#tool(args, options, [], this.#startedBy);
  }

  /** What it makes is empty, and it opens nothing else. */
  async #make(args: readonly string[], options: ToolOptions): Promise<void> {
    await this.#tool(args, options, [], []);
  }

  /** @param goodStatuses beyond 0 */
  async #tool(
    args: readonly string[],
    { signal, onProgress }: LongToolOptions,
    goodStatuses: readonly number[],
    startedBy: readonly string[],
  ): Promise<{ status: number; stdout: string }> {
    throwIfAborted(signal, `qemu-img ${args[0]}`);
    // The second of the two: a change of the user ends the bond with us.
    const [starter, ...starting] = [...startedBy, ...ENDING_WITH_US, this.#binary];
    const child = spawn(starter, [...starting, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const closed = once(child, 'close'); // before any other await: a missing binary is told by `error` at once
    const kill = (): void => void child.kill('SIGKILL');
    signal?.addEventListener('abort', kill, { once: true });
    try {
      const stdout =
        onProgress === undefined ? collect(child.stdout, MAX_OUTPUT_BYTES) : follow(child.stdout, onProgress);
      const [output, errors] = await Promise.all([stdout, collect(child.stderr, MAX_ERROR_BYTES), closed]);
      throwIfAborted(signal, `qemu-img ${args[0]}`);
      const status = child.exitCode ?? -1;
      if (status !== 0 && !goodStatuses.includes(status)) throw toolError(args, status, errors);
      return { status, stdout: output };
    } catch (error) {
      if (error instanceof StasisError) throw error;
      throw new StasisError('qemu-missing', `cannot execute ${this.#binary} by ${starter}`, {
        cause: error,
      });
    } finally {
      signal?.removeEventListener('abort', kill);
      kill();
    }
  }
}

/** @throws StasisError `storage-failed` when it is no report of that name */
export function readReport<N extends ReportName>(name: N, text: string): Static<(typeof REPORTS)[N]> {
  const schema: (typeof REPORTS)[N] = REPORTS[name];
  const report = jsonIn(text);
  if (Value.Check(schema, report)) return report;
  throw new StasisError('storage-failed', `qemu-img ${name} gave a report that Stasis can't read`, {
    details: { report: text.slice(0, MAX_TOLD_CHARS) },
  });
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // fits no schema
  }
}

/** setpriv's exit statuses then, as a shell's. */
const CANNOT_EXECUTE: readonly number[] = [126, 127];

/** Lazy refcounts would need a repair after a crash; extended L2 entries are not understood everywhere. */
const QCOW2_OPTIONS = ['-o', 'compat=1.1,lazy_refcounts=off,extended_l2=off'] as const;

function lockFree(inUse: boolean | undefined): readonly string[] {
  return inUse === true ? ['-U'] : [];
}

function flag(name: string, value: string | undefined): readonly string[] {
  return value === undefined ? [] : [name, value];
}

async function collect(stream: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of stream) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes)
      throw new StasisError('storage-failed', `qemu-img wrote more than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** With `-p` qemu-img writes `    (12.34/100%)\r` again and again. */
async function follow(stream: AsyncIterable<Buffer>, onProgress: (done: number) => void): Promise<string> {
  for await (const chunk of stream) {
    const percent = /\((\d+\.\d+)\/100%\)\s*$/.exec(chunk.toString('latin1'))?.[1];
    if (percent !== undefined) onProgress(Number(percent) / 100);
  }
  return '';
}

function toolError(args: readonly string[], status: number, stderr: string): StasisError {
  const desc = stderr.trim().replaceAll(/^qemu-img: /gm, '') || `status ${status}`;
  if (CANNOT_EXECUTE.includes(status)) return new StasisError('qemu-missing', desc);
  const code = /no space left|disk quota exceeded/i.test(desc) ? 'no-space' : 'storage-failed';
  return new StasisError(code, `qemu-img ${args[0]} failed: ${desc}`, { details: { args, status, desc } });
}
