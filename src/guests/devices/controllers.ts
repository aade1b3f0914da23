/** Controllers that other devices are plugged into: USB, SCSI, further SATA, and those of channels. */
import Type, { type Static } from 'typebox';
import { device } from '../command-line/arguments.ts';
import { SLOT, type Place } from '../command-line/slots.ts';
import { PciAddress } from '../definition/addresses.ts';
import { OneOf, strict } from '../definition/schema.ts';

const index = Type.Optional(Type.Integer({ minimum: 0, maximum: 31 }));

export const ControllerInput = Type.Union([
  Type.Object(
    {
      type: OneOf('usb'),
      index,
      model: OneOf(
        'qemu-xhci',
        'nec-usb-xhci',
        'piix3-usb-uhci',
        'piix4-usb-uhci',
        'usb-ehci',
        'pci-ohci',
        'ich9-usb-ehci1',
        'ich9-usb-uhci1',
        'ich9-usb-uhci2',
        'ich9-usb-uhci3',
      ),
      ports: Type.Optional(Type.Integer({ minimum: 1, maximum: 15 })),
      /** of a companion: the first port of the EHCI controller of the same index that is its own */
      firstPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 15 })),
      address: Type.Optional(PciAddress),
    },
    strict,
  ),
  Type.Object(
    {
      type: OneOf('scsi'),
      index,
      model: OneOf('virtio-scsi-pci', 'virtio-scsi-pci-non-transitional', 'virtio-scsi-pci-transitional'),
      address: Type.Optional(PciAddress),
    },
    strict,
  ),
  Type.Object(
    { type: OneOf('sata'), index: Type.Integer({ minimum: 1, maximum: 31 }), address: PciAddress },
    strict,
  ),
  Type.Object(
    {
      type: OneOf('channels'),
      index,
      ports: Type.Optional(Type.Integer({ minimum: 1, maximum: 31 })),
      vectors: Type.Optional(Type.Integer({ minimum: 0, maximum: 64 })),
      address: Type.Optional(PciAddress),
    },
    strict,
  ),
]);
export type Controller = Static<typeof ControllerInput>;

/** Names under which QEMU knows controllers; the first ones are also those that a guest has without saying so. */
export function controllerId(type: Controller['type'], number: number): string {
  const name = { usb: 'usb', scsi: 'scsi', sata: 'sata', channels: 'channels' }[type];
  return number === 0 ? name : `${name}${number}`;
}

export function hasController(
  controllers: readonly Controller[],
  type: Controller['type'],
  number = 0,
): boolean {
  return controllers.some((controller) => controller.type === type && (controller.index ?? 0) === number);
}

export function controllerArgs(controllers: readonly Controller[], place: Place): string[] {
  return controllers.flatMap((controller) => {
    const id = controllerId(controller.type, controller.index ?? 0);
    switch (controller.type) {
      case 'usb':
        return usbArgs(controller, id, place);
      case 'scsi':
        return device({ driver: controller.model, id, ...place(controller.address, SLOT.scsi) });
      case 'sata':
        return device({ driver: 'ich9-ahci', id, ...place(controller.address, 0) });
      case 'channels':
        return device({
          driver: 'virtio-serial-pci',
          id,
          ...(controller.ports === undefined ? {} : { max_ports: controller.ports }),
          ...(controller.vectors === undefined ? {} : { vectors: controller.vectors }),
          ...place(controller.address, SLOT.channels),
        });
      default:
        return controller satisfies never;
    }
  });
}

type UsbController = Extract<Controller, { type: 'usb' }>;

function usbArgs({ model, ports, firstPort, address }: UsbController, id: string, place: Place): string[] {
  const isXhci = model.endsWith('xhci');
  return device({
    driver: model,
    // A companion serves the slow devices on ports of its master: there is one bus, the master's.
    ...(firstPort === undefined ? { id } : { masterbus: `${id}.0`, firstport: firstPort }),
    ...(isXhci && ports !== undefined ? { p2: ports, p3: ports } : {}),
    ...place(address, SLOT.usb),
  });
}
