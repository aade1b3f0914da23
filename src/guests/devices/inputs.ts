/** Keyboards and pointers beside those that every PC has (PS/2), and USB devices that come through SPICE. */
import Type, { type Static } from 'typebox';
import { device } from '../command-line/arguments.ts';
import { SLOT, type Place } from '../command-line/slots.ts';
import { PciAddress, UsbAddress } from '../definition/addresses.ts';
import { OneOf, strict } from '../definition/schema.ts';
import { controllerId } from './controllers.ts';

export const InputInput = Type.Union([
  Type.Object(
    { type: OneOf('tablet', 'keyboard', 'mouse'), bus: OneOf('usb'), address: Type.Optional(UsbAddress) },
    strict,
  ),
  Type.Object(
    { type: OneOf('tablet', 'keyboard', 'mouse'), bus: OneOf('virtio'), address: PciAddress },
    strict,
  ),
]);
export type Input = Static<typeof InputInput>;

export const RedirectionInput = Type.Object({ address: Type.Optional(UsbAddress) }, strict);
export type Redirection = Static<typeof RedirectionInput>;

const USB_DRIVERS = { tablet: 'usb-tablet', keyboard: 'usb-kbd', mouse: 'usb-mouse' } as const;
const VIRTIO_DRIVERS = {
  tablet: 'virtio-tablet-pci',
  keyboard: 'virtio-keyboard-pci',
  mouse: 'virtio-mouse-pci',
} as const;

export function inputArgs(inputs: readonly Input[], place: Place): string[] {
  return inputs.flatMap((input, index) => {
    const id = index === 0 ? input.type : `${input.type}${index}`;
    return input.bus === 'usb'
      ? device({ driver: USB_DRIVERS[input.type], id, ...usbPlace(input.address) })
      : device({ driver: VIRTIO_DRIVERS[input.type], id, ...place(input.address, SLOT.usb) });
  });
}

export function redirectionArgs(redirections: readonly Redirection[]): string[] {
  return redirections.flatMap(({ address }, index) => [
    ...['-chardev', `spicevmc,id=redirection${index},name=usbredir`],
    ...device({
      driver: 'usb-redir',
      id: `redirection${index}-device`,
      chardev: `redirection${index}`,
      ...usbPlace(address),
    }),
  ]);
}

function usbPlace(address: string | undefined): { bus: string; port?: string } {
  if (address === undefined) return { bus: 'usb.0' };
  const [number = '0', port = '1'] = address.split(':');
  return { bus: `${controllerId('usb', Number(number))}.0`, port };
}
