/** Controllers of a domain: PCI bridges, USB, SCSI, SATA, and those of channels. */
import type { DefinitionInput } from '../guests/definition.ts';
import { pciAddress } from './address.ts';
import type { Context } from './context.ts';
import type { Element } from './element.ts';

type Bridge = NonNullable<DefinitionInput['bridges']>[number];
type Controller = NonNullable<DefinitionInput['controllers']>[number];

const BRIDGES = {
  'pcie-root-port': 'pcie-root-port',
  'pcie-switch-upstream-port': 'x3130-upstream',
  'pcie-switch-downstream-port': 'xio3130-downstream',
  'pcie-to-pci-bridge': 'pcie-pci-bridge',
  'dmi-to-pci-bridge': 'i82801b11-bridge',
  'pci-bridge': 'pci-bridge',
} as const;

/** libvirt's names of USB controllers and QEMU's. */
const USB = {
  'qemu-xhci': 'qemu-xhci',
  'nec-xhci': 'nec-usb-xhci',
  'piix3-uhci': 'piix3-usb-uhci',
  'piix4-uhci': 'piix4-usb-uhci',
  ehci: 'usb-ehci',
  'pci-ohci': 'pci-ohci',
  'ich9-ehci1': 'ich9-usb-ehci1',
  'ich9-uhci1': 'ich9-usb-uhci1',
  'ich9-uhci2': 'ich9-usb-uhci2',
  'ich9-uhci3': 'ich9-usb-uhci3',
} as const;

const SCSI = {
  'virtio-scsi': 'virtio-scsi-pci',
  'virtio-transitional': 'virtio-scsi-pci-transitional',
  'virtio-non-transitional': 'virtio-scsi-pci-non-transitional',
} as const;

export interface Controllers {
  readonly bridges: Bridge[];
  readonly controllers: Controller[];
}

export function readControllers(devices: Element, context: Context): Controllers {
  const bridges: Bridge[] = [];
  const controllers: Controller[] = [];
  const unplaced: Element[] = [];
  for (const element of devices.children('controller')) {
    const type = element.peek('type');
    if (type === 'pci') bridges.push(...readPci(element, unplaced));
    else controllers.push(...readController(element, type));
  }
  const [first] = unplaced;
  if (first !== undefined)
    context.note(
      first,
      `${unplaced.length} PCI bridges have no address, and nothing is behind them: left out`,
    );
  return { bridges, controllers };
}

/** @param unplaced where bridges go that are not used */
function readPci(element: Element, unplaced: Element[]): Bridge[] {
  element.take().attribute('type');
  const index = element.number('index') ?? 0;
  if (element.choice('model', { 'pcie-root': true, 'pci-root': true }) === true) return []; // the machine's own
  const model = element.choice('model', BRIDGES);
  const target = element.child('target');
  const address = pciAddress(element);
  if (model === undefined) return [];
  const port = target?.number('port');
  const chassis = target?.number('chassis') ?? target?.number('chassisNr');
  const hotplug = target?.flag('hotplug');
  const name = element.child('model')?.choice('name', {
    'pcie-root-port': undefined,
    ioh3420: 'ioh3420',
    'x3130-upstream': undefined,
    'xio3130-downstream': undefined,
    'pcie-pci-bridge': undefined,
    'i82801b11-bridge': undefined,
    'pci-bridge': undefined,
  } as const);
  if (address === undefined) {
    // As virt-install writes them: libvirt would give addresses to all devices, and put some behind these.
    unplaced.push(element);
    return [];
  }
  return [
    {
      index,
      model: name ?? model,
      address,
      ...(chassis === undefined ? {} : { chassis }),
      ...(port === undefined ? {} : { port }),
      ...(hotplug === undefined ? {} : { hotplug }),
    },
  ];
}

function readController(element: Element, type: string | undefined): Controller[] {
  const index = { index: Number(element.peek('index') ?? 0) };
  const taken = (): { address?: string } => {
    element.take().attribute('type');
    element.number('index');
    const address = pciAddress(element);
    return address === undefined ? {} : { address };
  };
  switch (type) {
    case 'usb': {
      if (element.choice('model', { none: true }) === true) {
        element.take().attribute('type');
        element.number('index');
        return [];
      }
      const model = element.choice('model', USB);
      if (model === undefined) return [];
      const ports = element.number('ports');
      const firstPort = element.child('master')?.number('startport');
      return [
        {
          type: 'usb',
          ...index,
          model,
          ...(ports === undefined ? {} : { ports }),
          ...(firstPort === undefined ? {} : { firstPort }),
          ...taken(),
        },
      ];
    }
    case 'scsi': {
      const model = element.choice('model', SCSI);
      return model === undefined ? [] : [{ type: 'scsi', ...index, model, ...taken() }];
    }
    case 'virtio-serial': {
      const ports = element.number('ports');
      const vectors = element.number('vectors');
      return [
        {
          type: 'channels',
          ...index,
          ...(ports === undefined ? {} : { ports }),
          ...(vectors === undefined ? {} : { vectors }),
          ...taken(),
        },
      ];
    }
    case 'sata':
    case 'ide': {
      const { address } = taken();
      // The first of each is part of the machine.
      if (type === 'ide' || index.index === 0 || address === undefined) return [];
      return [{ type: 'sata', ...index, address }];
    }
    case undefined:
    default:
      return [];
  }
}
