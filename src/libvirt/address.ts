/** Addresses of devices, from libvirt's spelling to that of a definition. */
import type { Element } from './element.ts';

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** Takes a PCI address. @returns undefined when there is none, or one that isn't understood, which stays untaken */
export function pciAddress(device: Element): string | undefined {
  const address = addressOf(device, 'pci');
  if (address === undefined || Number(address.peek('domain') ?? 0) !== 0) return undefined;
  address.number('domain');
  const bus = hex(address.number('bus') ?? 0, 2);
  const slot = hex(address.number('slot') ?? 0, 2);
  const more = address.flag('multifunction') === true ? '+' : '';
  return `${bus}:${slot}.${address.number('function') ?? 0}${more}`;
}

export function driveAddress(device: Element): string | undefined {
  const address = addressOf(device, 'drive');
  if (address === undefined) return undefined;
  return ['controller', 'bus', 'target', 'unit'].map((name) => address.number(name) ?? 0).join(':');
}

export function usbAddress(device: Element): string | undefined {
  const address = addressOf(device, 'usb');
  if (address?.peek('port') === undefined) return undefined;
  return `${address.number('bus') ?? 0}:${address.attribute('port')}`;
}

export function portAddress(device: Element): string | undefined {
  const address = addressOf(device, 'virtio-serial');
  // The bus of a controller is always its first.
  if (address?.peek('port') === undefined || Number(address.peek('bus') ?? 0) !== 0) return undefined;
  address.number('bus');
  return `${address.number('controller') ?? 0}:${address.number('port')}`;
}

function addressOf(device: Element, type: string): Element | undefined {
  const address = device.children('address').find((element) => element.peek('type') === type);
  address?.take().attribute('type');
  return address;
}
