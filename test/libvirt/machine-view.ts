/** What a guest would see of a machine, told by the real QEMU without letting it run. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { findQemu } from '../../src/qemu/build/binary.ts';
import { PlainQmp } from '../support/plain-qmp.ts';

export interface MachineView {
  /** every device in the tree of buses with its properties, its PCI class, address and ids */
  readonly tree: readonly string[];
  /** type and boot index of each device that was asked for, in the order of their names */
  readonly devices: readonly string[];
  readonly machine: Readonly<Record<string, unknown>>;
  readonly processors: unknown;
}

/** Starts QEMU, which stands still, asks it and ends it. @param args a whole command line but for the monitor */
export async function viewMachine(args: readonly string[], directory: string): Promise<MachineView> {
  const child = spawn((await findQemu()).path, [...args, '-qmp', 'stdio'], {
    cwd: directory,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (text: Buffer) => (errors += text.toString()));
  const ended = once(child, 'exit');
  try {
    const qmp = await PlainQmp.over(child.stdout, child.stdin);
    return {
      tree: comparable(await qmp.ask<string>('human-monitor-command', { 'command-line': 'info qtree' })),
      devices: await peripherals(qmp),
      machine: await machineProperties(qmp),
      processors: await qmp.ask('query-hotpluggable-cpus'),
    };
  } catch (error) {
    throw new Error(`QEMU says: ${errors}`, { cause: error });
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

/** Properties that name something of the host's, which each command line calls as it likes. */
const HOST_NAMES = /^(drive|chardev|netdev|rng|audiodev|memory-backend|masterbus) =/;

/** Without names of the host, and devices of one bus in an order that doesn't depend on when they were made. */
function comparable(tree: string): string[] {
  const lines = tree
    .split(/\r?\n/)
    .filter((line) => line !== '' && !HOST_NAMES.test(line.trim()))
    .map((line) => line.replace(/^(\s*bus: ).*/, '$1').replace(/(dev: [^,]+), id ".*"/, '$1'));
  return sorted(lines).join('\n').split('\n');
}

/** Lines of one indentation, each with those that are further in. */
function sorted(lines: readonly string[]): string[] {
  const depth = indentation(lines[0] ?? '');
  const blocks: string[][] = [];
  for (const line of lines) {
    if (indentation(line) === depth) blocks.push([line]);
    else blocks.at(-1)?.push(line);
  }
  return blocks
    .map(([head = '', ...rest]) => [head, ...(rest.length === 0 ? [] : sorted(rest))].join('\n'))
    .toSorted();
}

function indentation(line: string): number {
  return line.length - line.trimStart().length;
}

async function peripherals(qmp: PlainQmp): Promise<string[]> {
  const found: string[] = [];
  for (const folder of ['/machine/peripheral', '/machine/peripheral-anon']) {
    for (const { name, type } of await list(qmp, folder)) {
      if (!type.startsWith('child<')) continue;
      const path = `${folder}/${name}`;
      const hasBootIndex = (await list(qmp, path)).some((property) => property.name === 'bootindex');
      const bootIndex = hasBootIndex ? await qmp.ask<number>('qom-get', { path, property: 'bootindex' }) : -1;
      found.push(`${type} ${bootIndex}`);
    }
  }
  return found.toSorted();
}

async function machineProperties(qmp: PlainQmp): Promise<Record<string, unknown>> {
  const names = ['acpi', 'hpet', 'smm', 'vmport', 'type', 'usb'];
  const known = (await list(qmp, '/machine')).map(({ name }) => name);
  const read: Record<string, unknown> = {};
  for (const property of names.filter((name) => known.includes(name)))
    read[property] = await qmp.ask('qom-get', { path: '/machine', property });
  return read;
}

function list(qmp: PlainQmp, path: string): Promise<{ name: string; type: string }[]> {
  return qmp.ask('qom-list', { path });
}
