/** Guests as Stasis knows them: define, undefine, guests, show, policy. */
import { Option, type Command } from 'commander';
import { FALLBACKS, ON_BOOT, ON_SHUTDOWN } from '../../api/constants.ts';
import type { Guest, Policy } from '../../api/schemas.ts';
import { StasisError } from '../../errors.ts';
import { wholeNumber } from '../arguments.ts';
import { renderFields } from '../fields.ts';
import { describeDefined, describeQemu, renderGuest } from '../guest-view.ts';
import { mutate, noWaitOption, type MutationOptions } from '../mutation.ts';
import { openSession } from '../session.ts';
import { styleOfState } from '../style.ts';
import { renderTable, type Cell, type Column } from '../table.ts';
import { formatAge, formatBytes } from '../units.ts';

export function register(program: Command): void {
  program
    .command('define')
    .summary('make a guest known')
    .description(
      "Makes a guest known from a definition in YAML or JSON, or from a domain of libvirt's. Its disks stay where they are.",
    )
    .argument('<file>', "the definition, or the XML of a domain; '-' reads it from stdin")
    .option('--lenient', 'of a domain: leave out what is not supported, with a warning for each')
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      `
Examples:
  $ stasis define web1.yaml
  $ make-definition | stasis define - --json
  $ virsh dumpxml --inactive web1 | stasis define -

A small definition:
  name: web1
  memory: 2GiB
  cpus: 2
  disks:
    - {name: root, path: web1.qcow2}      # relative to the file`,
    )
    .action(define);

  program
    .command('undefine')
    .summary('let a guest leave as it came')
    .description(
      "Forgets a stopped guest. Its disks become the user's own files again, with what is on them now.",
    )
    .argument('<guest>')
    .option('--delete-images', 'delete its save images too; without it a guest that has some stays')
    .addOption(noWaitOption())
    .addHelpText('after', '\nExample:\n  $ stasis undefine web1 --delete-images')
    .action(undefine);

  program
    .command('guests')
    .summary('list all guests')
    .description('Lists all guests: state, memory, how many save images, the newest of them.')
    .addHelpText('after', "\nExample:\n  $ stasis guests --json | jq -r '.[].name'")
    .action(listGuests);

  program
    .command('show')
    .summary('show one guest')
    .description('Shows one guest: state, machine, disks and their layers, policy.')
    .argument('<guest>')
    .addHelpText('after', '\nExample:\n  $ stasis show web1')
    .action(show);

  program
    .command('policy')
    .summary('what happens to a guest when the host boots and shuts down')
    .description('Changes what is given of a guest’s policy, or prints it when nothing is.')
    .argument('<guest>')
    .addOption(new Option('--on-boot <action>', 'when the host boots').choices(ON_BOOT))
    .addOption(new Option('--on-shutdown <action>', 'when the host shuts down').choices(ON_SHUTDOWN))
    .option('--order <n>', 'lower ones are started first, and begin to end last', wholeNumber)
    .option('--delay <seconds>', 'wait this long after starting it', wholeNumber)
    .option('--time-limit <seconds>', 'for its start, and for each step of its end', wholeNumber)
    .addOption(new Option('--fallback <action>', 'when it can not be restored').choices(FALLBACKS))
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      `
On boot: restore (from the default image, if the guest has not run since it was taken, else start), start (from its disks in
any case), skip-if-saved (start, unless there is a default image: that is left to "stasis host restore-all"), none.
If it can't be restored its image is kept, and the fallback says what then: none, or start it from its disks.

On shutdown: save, shutdown, stop, none. What fails or takes too long goes on with the next of the first three.

Example:
  $ stasis policy web1 --on-boot restore --on-shutdown save --order 10`,
    )
    .action(policy);

  program
    .command('label')
    .summary('who may see a guest')
    .description(
      'Gives a guest labels in place of those that it has, or prints them when none is given. A credential for some labels sees only guests that have one of them.',
    )
    .argument('<guest>')
    .argument('[labels...]')
    .option('--none', 'take all of them away')
    .addOption(noWaitOption())
    .addHelpText('after', '\nExamples:\n  $ stasis label web1 web production\n  $ stasis label web1 --none')
    .action(label);

  program
    .command('qemu')
    .summary('which QEMU runs a guest')
    .description(
      'Has a guest run by another QEMU of this host, from its next start or restore on; prints which it is when none is named. Builds have their names in stasis.yaml: `qemu: {builds: {"10": /opt/qemu-10/bin/qemu-system-x86_64}}`. An image that the guest\'s QEMU can\'t load is refused; `stasis host check` tells before.',
    )
    .argument('<guest>')
    .argument('[build]')
    .option('--usual', 'the one that guests run by that say nothing')
    .addOption(noWaitOption())
    .addHelpText('after', '\nExamples:\n  $ stasis qemu web1 10\n  $ stasis qemu web1 --usual')
    .action(qemu);
}

async function define(
  file: string,
  options: MutationOptions & { lenient?: true },
  command: Command,
): Promise<void> {
  // Parsers are large, and only this needs them.
  const { isXml, parseDefinition, readDefinitionFile } = await import('../definition-file.ts');
  const { text, source, directory } = await readDefinitionFile(file);
  if (isXml(text)) {
    const { defineDomain } = await import('../domains.ts');
    await defineDomain(await openSession(command), { text, source }, options);
    return;
  }
  const definition = parseDefinition(text, source);
  const session = await openSession(command);
  await mutate(session, options, {
    run: (waiting) => session.client.defineGuest(definition, directory, waiting),
    text: describeDefined,
  });
}

async function undefine(
  guest: string,
  options: MutationOptions & { deleteImages?: true },
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  await mutate(session, options, {
    run: (waiting) => session.client.undefineGuest(guest, { deleteImages: options.deleteImages }, waiting),
    document: (_, operation) => operation,
    text: () => `undefined ${guest}`,
  });
}

const GUEST_COLUMNS: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'STATE' },
  { title: 'MEMORY', align: 'right', spare: true },
  { title: 'CPUS', align: 'right', spare: true },
  { title: 'IMAGES', align: 'right' },
  { title: 'LAST IMAGE', flexible: true },
  { title: 'TAKEN', align: 'right', spare: true },
];

async function listGuests(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const guests = await client.listGuests();
  output.print(guests, () =>
    guests.length === 0
      ? 'no guests yet: stasis define FILE'
      : renderTable(GUEST_COLUMNS, guests.map(guestRow), output.width),
  );
}

function guestRow(guest: Guest): Cell[] {
  return [
    guest.name,
    { text: guest.state, style: styleOfState(guest.state) },
    formatBytes(guest.memoryBytes),
    String(guest.cpus),
    String(guest.images),
    guest.lastImage ?? '–',
    guest.lastImageAt === null ? '' : formatAge(guest.lastImageAt),
  ];
}

async function show(name: string, _options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const guest = await client.getGuest(name);
  output.print(guest, () => renderGuest(guest, output.width));
}

interface PolicyOptions extends MutationOptions {
  readonly onBoot?: Policy['onBoot'];
  readonly onShutdown?: Policy['onShutdown'];
  readonly order?: number;
  readonly delay?: number;
  readonly timeLimit?: number;
  readonly fallback?: Policy['fallback'];
}

async function policy(guest: string, options: PolicyOptions, command: Command): Promise<void> {
  const session = await openSession(command);
  const { client, output } = session;
  const { onBoot, onShutdown, order, delay: delaySeconds, timeLimit: timeLimitSeconds, fallback } = options;
  const changes = { onBoot, onShutdown, order, delaySeconds, timeLimitSeconds, fallback };
  if (Object.values(changes).every((value) => value === undefined)) {
    const current = (await client.getGuest(guest)).policy;
    output.print(current, () => renderPolicy(current));
    return;
  }
  await mutate(session, options, {
    run: (waiting) => client.setPolicy(guest, changes, waiting),
    document: (changed) => changed.policy,
    text: (changed) => renderPolicy(changed.policy),
  });
}

async function label(
  guest: string,
  labels: string[],
  options: MutationOptions & { readonly none?: true },
  command: Command,
): Promise<void> {
  const session = await openSession(command);
  const { client, output } = session;
  if (labels.length === 0 && options.none !== true) {
    const current = (await client.getGuest(guest)).labels;
    output.print(current, () => current);
    return;
  }
  await mutate(session, options, {
    run: (waiting) => client.setLabels(guest, labels, waiting),
    document: (changed) => changed.labels,
    text: (changed) => changed.labels,
  });
}

async function qemu(
  guest: string,
  build: string | undefined,
  options: MutationOptions & { readonly usual?: true },
  command: Command,
): Promise<void> {
  if (build !== undefined && options.usual === true)
    throw new StasisError('invalid-request', 'either the name of a build or --usual, not both');
  const session = await openSession(command);
  const { client, output } = session;
  if (build === undefined && options.usual !== true) {
    const found = await client.getGuest(guest);
    output.print(found.qemu, () => [describeQemu(found)]);
    return;
  }
  await mutate(session, options, {
    run: (waiting) => client.setQemu(guest, build ?? null, waiting),
    document: (changed) => changed.qemu,
    text: describeQemu,
  });
}

function renderPolicy(current: Policy): string[] {
  return renderFields([
    ['on boot', current.onBoot],
    ['on shutdown', current.onShutdown],
    ['order', String(current.order)],
    ['delay', `${current.delaySeconds} s`],
    ['time limit', `${current.timeLimitSeconds} s`],
    ['fallback', current.fallback],
  ]);
}
