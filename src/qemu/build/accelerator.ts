import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createHash, randomUUID } from 'node:crypto';
import { release, tmpdir, version } from 'node:os';
import { join } from 'node:path';
import { ENDING_WITH_US } from '../../ending-with-us.ts';
import { errnoOf, StasisError } from '../../errors.ts';
import type { QemuBinary } from './binary.ts';
import { PROOF_EXIT_STATUS, proofArguments, proofRom } from './kvm-proof-program.ts';
import { waitFor } from '../wait.ts';

export type Accelerator = 'kvm' | 'tcg';

export interface KvmProof {
  readonly works: boolean;
  /** For a person: why not, or that it does. */
  readonly reason: string;
}

/** The program takes 0.1 s on a CPU that really runs it, 0.7 s even in QEMU's own emulation. */
const PROOF_TIME_LIMIT_MS = 3_000;

/**
 * Chooses how a guest's CPU is run. `auto`: by KVM when KVM has been proven to work, else by emulation. The proof is
 * made once per kernel and QEMU, and kept in `cacheDirectory` (made if missing).
 *
 * @throws StasisError `unsupported` when `kvm` is demanded and doesn't work; `cancelled`
 */
export async function resolveAccelerator(
  wanted: 'auto' | Accelerator,
  host: {
    readonly binary: QemuBinary;
    readonly cacheDirectory: string;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<{ readonly accelerator: Accelerator; readonly reason: string }> {
  if (wanted === 'tcg') return { accelerator: 'tcg', reason: 'emulation was asked for' };
  const { works, reason } = await cachedProof(host.binary, host.cacheDirectory, host.signal);
  if (works) return { accelerator: 'kvm', reason };
  if (wanted === 'auto') return { accelerator: 'tcg', reason };
  throw new StasisError('unsupported', `KVM does not work on this host: ${reason}`, { details: { reason } });
}

/**
 * Proves that KVM works by running a small guest on it under a time limit. That the device can be opened says
 * little: see kvm-proof-program.ts.
 * @throws StasisError `cancelled`, `qemu-missing`; a KVM that doesn't work is an answer, no error
 */
export async function proveKvm(
  binary: QemuBinary,
  options: { readonly timeLimitMs?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<KvmProof> {
  const obstacle = await deviceObstacle();
  if (obstacle !== undefined) return { works: false, reason: obstacle };
  const directory = await mkdtemp(join(tmpdir(), 'stasis-kvm-proof-'));
  try {
    const romPath = join(directory, 'proof.rom');
    await writeFile(romPath, proofRom());
    for (const path of [directory, romPath]) await chmod(path, 0o755); // whoever QEMU runs as
    return await runProof(binary, ['-accel', 'kvm', ...proofArguments(romPath)], options);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function deviceObstacle(): Promise<string | undefined> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') {
      return 'there is no /dev/kvm: enable virtualization in the firmware (nested, in a virtual machine), load kvm_intel or kvm_amd';
    }
    return 'no permission for /dev/kvm: add the user to the group "kvm"';
  }
}

async function runProof(
  { path, startedBy }: QemuBinary,
  args: readonly string[],
  options: { readonly timeLimitMs?: number; readonly signal?: AbortSignal | undefined },
): Promise<KvmProof> {
  const { timeLimitMs = PROOF_TIME_LIMIT_MS, signal } = options;
  // A guest that hangs on KVM would be there for ever when this process is killed.
  const [program, ...before] = [...startedBy, ...ENDING_WITH_US, path];
  const child = spawn(program, [...before, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const { promise: ended, resolve, reject } = Promise.withResolvers<number | null>();
  child.once('close', (code) => resolve(code));
  child.once('error', (cause) =>
    reject(new StasisError('qemu-missing', `cannot execute ${path}`, { cause })),
  );
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-2_000);
  });
  try {
    const status = await waitFor('the proof of KVM', ended, { timeoutMs: timeLimitMs, signal });
    if (status === PROOF_EXIT_STATUS) return { works: true, reason: 'a guest program ran at full speed' };
    const lastLine = log.trim().split('\n').at(-1) ?? '';
    return { works: false, reason: `QEMU ended with ${status ?? child.signalCode}: ${lastLine}` };
  } catch (error) {
    if (!(error instanceof StasisError && error.code === 'timeout')) throw error;
    const reason = `a guest program of 0.1 s did not end within ${timeLimitMs / 1e3} s: /dev/kvm opens, but guests hang or crawl on it`;
    return { works: false, reason };
  } finally {
    if (child.kill('SIGKILL')) await ended;
  }
}

interface CachedProof extends KvmProof {
  /** What the proof holds for; another key makes it void. */
  readonly key: string;
}

async function cachedProof(
  binary: QemuBinary,
  cacheDirectory: string,
  signal?: AbortSignal,
): Promise<KvmProof> {
  // Permissions come and go, and cost nothing to look at: never from the cache.
  const obstacle = await deviceObstacle();
  if (obstacle !== undefined) return { works: false, reason: obstacle };
  const { versionText, modifiedMs, startedBy } = binary;
  const key = [release(), version(), binary.path, versionText, modifiedMs, ...startedBy].join('|');
  const path = join(cacheDirectory, cacheFile(binary));
  const cached = await readCache(path);
  if (cached?.key === key) return cached;

  const proof = await proveKvm(binary, { signal });
  await mkdir(cacheDirectory, { recursive: true });
  const fresh = `${path}.${randomUUID()}`; // two guests may start at once
  await writeFile(fresh, JSON.stringify({ key, ...proof } satisfies CachedProof));
  await rename(fresh, path);
  return proof;
}

/** Each build of several has its own. */
function cacheFile({ path }: QemuBinary): string {
  return `kvm-proof-${createHash('sha256').update(path).digest('hex').slice(0, 16)}.json`;
}

/** A cache that can't be read, for whatever reason, is no cache. */
async function readCache(path: string): Promise<CachedProof | undefined> {
  try {
    const cached: unknown = JSON.parse(await readFile(path, 'utf8'));
    return isCachedProof(cached) ? cached : undefined;
  } catch {
    return undefined;
  }
}

function isCachedProof(value: unknown): value is CachedProof {
  if (typeof value !== 'object' || value === null) return false;
  if (!('key' in value && 'works' in value && 'reason' in value)) return false;
  return (
    typeof value.key === 'string' && typeof value.works === 'boolean' && typeof value.reason === 'string'
  );
}
