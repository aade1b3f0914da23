/** Guests of another manager's become Stasis's: import libvirt. */
import type { Command } from 'commander';
import { StasisError } from '../../errors.ts';
import type { LibvirtPaths } from '../../libvirt/host.ts';
import type { Differences, Translation } from '../domains.ts';
import { describeDefined } from '../guest-view.ts';
import { watched } from '../mutation.ts';
import { Output } from '../output.ts';
import { openSession, type GlobalOptions, type Session } from '../session.ts';

export function register(program: Command): void {
  program
    .command('import')
    .summary('take over guests of libvirt')
    .description('Takes over guests of another manager.')
    .command('libvirt')
    .description(
      'Defines guests as libvirt has them: same UUID, same MAC addresses, every device where it was. ' +
        'One that libvirt is running is refused. Without names: all of them.',
    )
    .argument('[guest...]')
    .option('--from <directory>', "where libvirt's XML files are (default: /etc/libvirt/qemu)")
    .option('--lenient', 'leave out what is not supported, with a warning for each')
    .option('--dry-run', 'print the definitions as YAML, and define nothing')
    .addHelpText(
      'after',
      `
libvirt goes on to know the guest: see to it that it does not start it any more (virsh undefine --keep-nvram).

Examples:
  $ sudo stasis import libvirt web1 --dry-run
  $ sudo stasis import libvirt
  $ stasis import libvirt --from ~/.config/libvirt/qemu`,
    )
    .action(importLibvirt);
}

interface ImportOptions {
  readonly from?: string;
  readonly lenient?: true;
  readonly dryRun?: true;
}

interface Imported extends Differences {
  readonly guest: string;
  readonly error?: StasisError;
  readonly definition?: unknown;
}

async function importLibvirt(
  names: readonly string[],
  options: ImportOptions,
  command: Command,
): Promise<void> {
  const { listDomains, SYSTEM_PATHS } = await import('../../libvirt/host.ts');
  const paths: LibvirtPaths = options.from === undefined ? SYSTEM_PATHS : { guests: options.from };
  const wanted = names.length > 0 ? names : await listDomains(paths);
  if (options.dryRun === true) {
    await printDefinitions(paths, wanted, options, command);
    return;
  }
  const session = await openSession(command);
  const imported: Imported[] = [];
  for (const name of wanted) imported.push(await importOne(session, paths, name, options));
  session.output.print(
    imported,
    () => `imported ${imported.filter(({ error }) => !error).length} of ${wanted.length}`,
  );
  const [failed] = imported.flatMap(({ error }) => (error === undefined ? [] : [error]));
  if (failed !== undefined) process.exitCode = failed.exitStatus;
}

/** A guest that can't be taken over is no reason to leave the others. */
async function importOne(
  session: Session,
  paths: LibvirtPaths,
  name: string,
  options: ImportOptions,
): Promise<Imported> {
  const { bridgesOf, isAutostarted, readDomainFile, refuseInUse } = await import('../../libvirt/host.ts');
  const { define, remarksOf, translate } = await import('../domains.ts');
  try {
    const domain = await readDomainFile(paths, name);
    const reading = { lenient: options.lenient ?? false, bridges: await bridgesOf(paths) };
    const { definition } = await translate(domain, true, reading);
    await refuseInUse(paths, name, definition.uuid);
    let translation: Translation | undefined;
    const { result } = await watched(session, async (waiting) => {
      const defined = await define(session, domain, reading, waiting);
      translation = defined.translation;
      return defined.outcome;
    });
    const { unsupported, notes } = translation ?? { unsupported: [], notes: [] };
    if (!session.output.json) session.output.lines(describeDefined(result));
    for (const remark of remarksOf({ unsupported, notes })) session.output.note(`${name}: ${remark}`);
    if (await isAutostarted(paths, name))
      session.output.note(
        `${name}: warning: libvirt starts it when the host boots, and two must not write to its disks: virsh autostart --disable ${name}`,
      );
    return { guest: name, unsupported, notes };
  } catch (error) {
    if (!(error instanceof StasisError)) throw error;
    if (!session.output.json) session.output.error(error);
    return { guest: name, unsupported: [], notes: [], error };
  }
}

async function printDefinitions(
  paths: LibvirtPaths,
  names: readonly string[],
  { lenient = false }: { lenient?: boolean },
  command: Command,
): Promise<void> {
  const { bridgesOf, readDomainFile } = await import('../../libvirt/host.ts');
  const { remarksOf, translate } = await import('../domains.ts');
  const { stringify } = await import('yaml');
  const { json = false } = command.optsWithGlobals<GlobalOptions>();
  const output = new Output(json);
  const bridges = await bridgesOf(paths);
  const all: Imported[] = [];
  for (const name of names) {
    const { definition, ...differences } = await translate(await readDomainFile(paths, name), lenient, {
      bridges,
    });
    for (const remark of remarksOf(differences)) output.note(`${name}: ${remark}`);
    all.push({ guest: name, ...differences, definition });
  }
  output.print(all, () => all.map(({ definition }) => stringify(definition).trimEnd()).join('\n---\n'));
}
