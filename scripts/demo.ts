/**
 * The main job, narrated: every step is the command a user would type, with what it prints. What is claimed is proven
 * by asking the guest itself; a proof that fails ends the demo with an error. Nothing is left behind.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { StasisClient } from '../src/client/index.ts';
import { sessionPaths } from '../src/paths.ts';
import { killQemu } from '../src/qemu/process/process.ts';
import { Witness } from '../test/support/witness.ts';

const ROOT = join(import.meta.dirname, '..');
const STASIS = join(ROOT, 'bin/stasis');
const REGION = { disk: 'vda', offsetMiB: 16, mib: 4 } as const;

/** What the guest says of itself. */
interface Content {
  readonly memory: string;
  readonly disk: string;
}

async function main(): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'stasis-demo-'));
  const interrupt = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => interrupt.abort(new Error(`ended by ${signal}`)));
  try {
    await new Demo(home, interrupt.signal).run();
  } finally {
    await cleanUp(home);
  }
}

class Demo {
  readonly #home: string;
  readonly #signal: AbortSignal;
  readonly #client: StasisClient;

  constructor(home: string, signal: AbortSignal) {
    this.#home = home;
    this.#signal = signal;
    this.#client = new StasisClient({ connect: `unix:${sessionPaths({ STASIS_HOME: home }).socket}` });
  }

  async run(): Promise<void> {
    say(`Everything below happens in ${this.#home} and is removed at the end.`);

    heading('A guest with two disks');
    await this.#writeDefinition();
    await this.#stasis('define', 'web1.yaml');
    await this.#stasis('start', 'web1');
    say('It boots a tiny Linux whose only program keeps a counter in memory and on both disks, and can');
    say('tell a checksum of its memory. We give it 24 MiB of random memory and 4 MiB of random disk.');
    await this.#ask((witness) => witness.fill(1, 24));
    await this.#ask((witness) => witness.write(REGION.disk, REGION.offsetMiB, REGION.mib, 1));
    const good = await this.#content('The guest now');

    heading('Save it while it runs');
    await this.#stasis('save', 'web1', 'before-update', '--live', '--description', 'the last good state');
    const { pauseMs } = await this.#client.getSaveImageInfo('web1', 'before-update');
    say(
      `Memory and both disks of one instant. The guest stood still for ${Math.round(pauseMs ?? 0)} ms and runs on.`,
    );

    heading('Then something goes wrong');
    await this.#ask((witness) => witness.touch(1500, 2));
    await this.#ask((witness) => witness.write(REGION.disk, REGION.offsetMiB, REGION.mib, 2));
    const bad = await this.#content('After a bad update');
    prove('memory and disk have changed', bad.memory !== good.memory && bad.disk !== good.disk);
    await this.#stasis('save', 'web1', 'broken', '--live');
    await this.#stasis('images', 'web1', '--tree');

    heading('Go back');
    await this.#stasis('restore', 'web1', 'before-update', '--yes');
    this.#same('After the restore', await this.#content('After the restore'), good);
    say('An image can be restored any number of times, and from any place in the tree:');
    await this.#stasis('restore', 'web1', 'broken', '--yes');
    this.#same('The other image', await this.#content('The other image'), bad);
    await this.#stasis('restore', 'web1', 'before-update', '--yes');

    heading('Delete, anywhere in the tree, while the guest runs');
    await this.#stasis('delete', 'web1', 'before-update');
    await this.#stasis('delete', 'web1', 'broken');
    this.#same('The running guest', await this.#content('The running guest'), good);

    heading('Suspend and resume');
    await this.#stasis('save', 'web1');
    await this.#stasis('start', 'web1');
    this.#same('After suspend and resume', await this.#content('After suspend and resume'), good);

    heading('Leave as it came');
    await this.#stasis('shutdown', 'web1');
    await this.#stasis('undefine', 'web1');
    say('Its disks hold what it wrote; no layer of ours is left.');
    process.stdout.write(
      `\n${style('bold', 'Next:')} bin/stasis help, the two-minute tour in README.md, or a guest of your own.\n`,
    );
  }

  async #writeDefinition(): Promise<void> {
    for (const name of ['root', 'data'])
      await this.#command('qemu-img', ['create', '-q', '-f', 'qcow2', `${name}.qcow2`, '64M']);
    const guest = join(ROOT, '.cache/test-guest');
    const definition = `name: web1
memory: 128MiB
accelerator: tcg
boot:
  kernel: ${guest}/vmlinuz
  initrd: ${guest}/initrd.gz
  cmdline: console=ttyS0 quiet mitigations=off cryptomgr.notests
disks:
  - {name: root, path: root.qcow2, format: qcow2}
  - {name: data, path: data.qcow2, format: qcow2}
`;
    await writeFile(join(this.#home, 'web1.yaml'), definition);
    process.stdout.write(`${style('cyan', '$ cat web1.yaml')}\n${definition.replaceAll(ROOT, '…')}`);
  }

  /** Types a command of ours. */
  #stasis(...args: string[]): Promise<void> {
    const typed = args.map((arg) => (arg.includes(' ') ? `"${arg}"` : arg)).join(' ');
    process.stdout.write(`${style('cyan', `$ stasis ${typed}`)}\n`);
    return this.#command(STASIS, args);
  }

  async #command(program: string, args: readonly string[]): Promise<void> {
    const child = spawn(program, args, {
      cwd: this.#home,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, STASIS_HOME: this.#home },
      signal: this.#signal,
    });
    const [status] = await once(child, 'close');
    if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with status ${String(status)}`);
  }

  /** Talks to the guest over its serial console. */
  async #ask<T>(question: (witness: Witness) => Promise<T>): Promise<T> {
    await using witness = new Witness(await this.#client.openConsole('web1', { signal: this.#signal }));
    await witness.ping(60_000);
    // Awaited here: the console is closed when this returns.
    return await question(witness);
  }

  /** Memory and disk as the guest reads them, and its own word that the two are of one instant. */
  #content(title: string): Promise<Content> {
    return this.#ask(async (witness) => {
      const memory = await witness.checksum();
      const { checksum: disk } = await witness.read(REGION.disk, REGION.offsetMiB, REGION.mib);
      const { mismatches, counter } = await witness.status();
      process.stdout.write(`  ${title}: memory ${memory.checksum}, disk ${disk}, counter ${counter}\n`);
      prove(
        'no wrong page of memory, and no disk that differs from what memory says it wrote',
        memory.errors === 0 && mismatches === 0,
      );
      return { memory: memory.checksum, disk };
    });
  }

  #same(title: string, actual: Content, expected: Content): void {
    prove(`${title}: memory is equal, every page of it`, actual.memory === expected.memory);
    prove(`${title}: the disk is equal`, actual.disk === expected.disk);
  }
}

function prove(claim: string, holds: boolean): void {
  process.stdout.write(`  ${holds ? style('green', '✔') : style('red', '✖')} ${claim}\n`);
  if (!holds) throw new Error(`not so: ${claim}`);
}

function heading(text: string): void {
  process.stdout.write(`\n${style('bold', `── ${text}`)}\n`);
}

function say(text: string): void {
  process.stdout.write(`${style('dim', text)}\n`);
}

function style(format: 'bold' | 'dim' | 'cyan' | 'green' | 'red', text: string): string {
  return styleText(format, text, { stream: process.stdout });
}

/** Ends the session daemon and every QEMU of this home, and removes it. */
async function cleanUp(home: string): Promise<void> {
  const paths = sessionPaths({ STASIS_HOME: home });
  try {
    const { pid } = await new StasisClient({ connect: `unix:${paths.socket}` }).hostStatus();
    process.kill(pid, 'SIGTERM');
  } catch {
    // No daemon was started, or it is gone: nothing to end.
  }
  const guests = join(paths.run, 'guests');
  for (const name of await readdir(guests).catch(() => [])) await killQemu(join(guests, name));
  await rm(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
}

try {
  await main();
} catch (error) {
  process.stderr.write(`\ndemo: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
