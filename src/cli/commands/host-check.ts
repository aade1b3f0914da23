/** `host check`: before QEMU, the kernel or the machine is replaced. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { HostCheck, HostCheckRequest } from '../../api/schemas.ts';
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
    .option(
      '--with <qemu>',
      "another QEMU than the guest's own: a path, or the name of a build; the new one before an upgrade",
    )
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
  const found = await client.checkHost({ ...targetOf(options.with), guest, image });
  output.print(found, () => render(found, output.width));
  if (found.results.some(({ verdict }) => verdict === 'no')) process.exitCode = 1;
}

/** A path, or the name of a build in the daemon's settings, which has no slash. */
function targetOf(wanted: string | undefined): Pick<HostCheckRequest, 'binary' | 'build'> {
  if (wanted === undefined) return {};
  return wanted.includes('/') ? { binary: resolve(wanted) } : { build: wanted };
}

const COLUMNS: readonly Column[] = [
  { title: 'GUEST', flexible: true },
  { title: 'IMAGE', flexible: true },
  { title: 'MADE BY', flexible: true, spare: true },
  { title: 'BY', spare: true },
  { title: 'POSSIBLE' },
  { title: 'WHY', flexible: true },
];
const STYLES = { yes: 'green', warning: 'yellow', no: 'red' } as const;

function render({ qemu, results }: HostCheck, width: number): string[] {
  const rows = results.map(({ guest, image, madeBy, qemu: by, verdict, reasons, remarks }): Cell[] => [
    guest,
    image ?? '(its start)',
    madeBy?.split(' ')[0] ?? '',
    by.split(' ')[0] ?? '',
    { text: verdict === 'warning' ? 'yes, but' : verdict, style: STYLES[verdict] },
    [...reasons, ...remarks].join('; '),
  ]);
  return [`by QEMU ${qemu.version}, ${qemu.binary}`, '', ...renderTable(COLUMNS, rows, width)];
}
