/** What a guest's disks are made of: disk tree. */
import type { Command } from 'commander';
import type { DiskTree } from '../../api/schemas.ts';
import { diskNamed, renderDisk } from '../disk-tree.ts';
import { openSession } from '../session.ts';

export function register(program: Command): void {
  const disk = program
    .command('disk')
    .summary('disks and their layers')
    .description('Disks and their layers.');
  disk
    .command('tree')
    .summary('layers, who holds them, and what they occupy')
    .description(
      'Shows the layers of each disk, the root first, with those of clones; ● is what the guest writes to, ○ what an image or another layer needs.',
    )
    .argument('<guest>')
    .option('--disk <name>', 'only this disk')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis disk tree web1\n  $ stasis disk tree web1 --disk root --json',
    )
    .action(tree);
}

async function tree(guest: string, options: { disk?: string }, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const all = await client.listDisks(guest);
  const disks = options.disk === undefined ? all : [diskNamed(all, options.disk, guest)];
  const isFirst = (disk: DiskTree) => disk === disks[0];
  output.print(disks, () =>
    disks.flatMap((disk) => [...(isFirst(disk) ? [] : ['']), ...renderDisk(disk, output.width)]),
  );
}
