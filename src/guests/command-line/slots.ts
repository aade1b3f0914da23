/** Where devices are on the PCI bus: where their definition says, or else in a slot of their own. */
/** PCI slots, fixed for ever: an image taken by any version of Stasis must find its devices. */
export const SLOT = {
  graphics: 0x2,
  channels: 0x3,
  scsi: 0x4,
  usb: 0x5,
  rng: 0x6,
  balloon: 0x7,
  firstDisk: 0x8,
  lastNvme: 0x15,
  watchdog: 0x16,
  sound: 0x17,
  firstNetwork: 0x18,
  panic: 0x1e,
} as const;

export type Address = { bus: string; addr: string; multifunction?: true };

/** The place of a device that may have an address. */
export type Place = (address: string | undefined, slot: number) => Address;

/** @returns how devices of this machine are placed */
export function placesOf(machine: string): Place {
  const root = machine.startsWith('pc-i440fx') ? 'pci.0' : 'pcie.0';
  return (address, slot) => {
    if (address === undefined) return { bus: root, addr: `0x${slot.toString(16)}` };
    const [bus = '', device = '', number = ''] = address.split(/[:.]/);
    return {
      bus: Number.parseInt(bus, 16) === 0 ? root : bridgeId(Number.parseInt(bus, 16)),
      addr: `0x${Number.parseInt(device, 16).toString(16)}.0x${number.charAt(0)}`,
      ...(number.endsWith('+') ? { multifunction: true } : {}),
    };
  };
}

/** The name under which QEMU knows a bridge, and the bus behind it. */
export function bridgeId(index: number): string {
  return `pci.${index}`;
}
