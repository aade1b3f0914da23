/** A libvirt domain as a guest's definition. */
import { StasisError } from '../errors.ts';
import type { DefinitionInput } from '../guests/definition.ts';
import { bootKinds, readBoot } from './boot.ts';
import { Context, type DomainOptions } from './context.ts';
import { readControllers } from './controllers.ts';
import { readChannels, readGraphics, readHelpers, readInputs, readSerial, readSound } from './devices.ts';
import { readDisks } from './disks.ts';
import { Element, type Finding } from './element.ts';
import { readEvents, readFeatures, readMemory, readProcessors } from './machine.ts';
import { readNetworks } from './networks.ts';
import { parseXml } from './xml.ts';

/** Input of `define`. */
export type DomainDefinition = DefinitionInput;

export interface ReadDomain {
  readonly definition: DefinitionInput;
  /** what is not supported, by line: what the definition lacks of the domain */
  readonly unsupported: readonly Finding[];
  /** what is supported but not the same as under libvirt, by line */
  readonly notes: readonly Finding[];
}

/**
 * Reads what `virsh dumpxml`, virt-install or a file below /etc/libvirt/qemu has of a guest.
 * @param source how messages call the text
 * @throws StasisError `invalid-definition` when it is no XML, or no domain
 */
export async function readDomain(
  text: string,
  source: string,
  options: DomainOptions = {},
): Promise<ReadDomain> {
  const root = await parseXml(text, source);
  if (root.name !== 'domain')
    throw new StasisError(
      'invalid-definition',
      `${source}:${root.line}: <${root.name}> is no domain of libvirt`,
    );
  const domain = new Element(root).take();
  const context = new Context(options);
  const definition = readWhole(domain, context);
  const byLine = (findings: readonly Finding[]) => findings.toSorted((a, b) => a.line - b.line);
  return {
    definition,
    unsupported: byLine([...context.problems, ...domain.leftovers()]),
    notes: byLine(context.notes),
  };
}

function readWhole(domain: Element, context: Context): DefinitionInput {
  const uuid = domain.child('uuid')?.text();
  const generation = domain.child('genid')?.text();
  readEvents(domain, context);
  const boot = readBoot(domain, context);
  const devices = domain.child('devices') ?? domain;
  return ordered(
    {
      name: domain.child('name')?.text() ?? '',
      ...(uuid === undefined ? {} : { uuid }),
      ...readMemory(domain, context),
      ...readProcessors(domain, context),
      ...boot,
      ...readFeatures(domain),
      ...(generation === undefined || generation === '' ? {} : { generation }),
      ...readControllers(devices, context),
      ...readDisks(devices, context),
      networks: readNetworks(devices, context),
      ...readSerial(devices, context),
      ...readChannels(devices, context),
      ...readGraphics(devices, context),
      ...readInputs(devices, context),
      ...readSound(devices, context),
      ...readHelpers(devices, boot.machine ?? 'q35', context),
      ...readArguments(domain),
    },
    bootKinds(domain),
  );
}

/** `<boot dev>` names kinds of devices: of each the first one is booted from. */
function ordered(
  definition: DefinitionInput,
  kinds: readonly ('hd' | 'cdrom' | 'network')[],
): DefinitionInput {
  const { disks = [], networks = [], emptyDrives = [] } = definition;
  const all = [...disks, ...networks, ...emptyDrives];
  if (all.some(({ bootOrder }) => bootOrder !== undefined)) return definition;
  kinds.forEach((kind, index) => {
    const first = {
      hd: disks.find(({ device }) => device === 'disk'),
      cdrom: disks.find(({ device }) => device === 'cdrom') ?? emptyDrives[0],
      network: networks[0],
    }[kind];
    if (first !== undefined) first.bootOrder = index + 1;
  });
  return definition;
}

/** Arguments for QEMU that somebody added by hand. */
function readArguments(domain: Element): Pick<DefinitionInput, 'qemu'> {
  const line = domain.child('qemu:commandline');
  if (line === undefined) return {};
  const args = line.children('qemu:arg').map((argument) => argument.take().attribute('value') ?? '');
  return { qemu: { args } };
}
