/** `host check`: before QEMU, the kernel or the machine is replaced. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { HostCheck } from '../../api/schemas.ts';
import { openSession } from '../session.ts';
import { renderTable, type Cell, type Column } from '../table.ts';

export function registerCheck(host: Command): void {
  host
    .command('check')
    .summary('which images a QEMU could restore, and why not')
    .description(
      "Says for each image whether this host's QEMU, or another one, could restore it, and for each guest whether it could be started: machine type, devices and the versions of their states, processor, firmware, accelerator. No guest is touched. Status 1 when one could not.",
    )
    .argument('[guest]', 'only one guest and its images')
    .argument('[image]', 'only one of them')
    .option('--with <binary>', 'another QEMU than the one in use: the new one before an upgrade')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis host check --with /opt/qemu-11/bin/qemu-system-x86_64\n  $ stasis host check web1 before-update',
    )
    .action(check);
}

async function check(
  guest: string | undefined,
  image: string | undefined,
  options: { readonly with?: string },
  command: Command,
): Promise<void> {
  const { client, output } = await openSession(command);
  const binary = options.with === undefined ? undefined : resolve(options.with);
  const found = await client.checkHost({ binary, guest, image });
  output.print(found, () => render(found, output.width));
  if (found.results.some(({ verdict }) => verdict === 'no')) process.exitCode = 1;
}

const COLUMNS: readonly Column[] = [
  { title: 'GUEST', flexible: true },
  { title: 'IMAGE', flexible: true },
  { title: 'MADE BY', flexible: true, spare: true },
  { title: 'POSSIBLE' },
  { title: 'WHY', flexible: true },
];
const STYLES = { yes: 'green', warning: 'yellow', no: 'red' } as const;

function render({ qemu, results }: HostCheck, width: number): string[] {
  const rows = results.map(({ guest, image, madeBy, verdict, reasons, remarks }): Cell[] => [
    guest,
    image ?? '(its start)',
    madeBy?.split(' ')[0] ?? '',
    { text: verdict === 'warning' ? 'yes, but' : verdict, style: STYLES[verdict] },
    [...reasons, ...remarks].join('; '),
  ]);
  return [`by QEMU ${qemu.version}, ${qemu.binary}`, '', ...renderTable(COLUMNS, rows, width)];
}
