/** Where devices are on the PCI bus unless their definition says otherwise. */

/** PCI slots, fixed for ever: an image taken by any version of Stasis must find its devices. */
export const SLOT = {
  graphics: 0x2,
  channels: 0x3,
  scsi: 0x4,
  usb: 0x5,
  firstDisk: 0x8,
  firstNetwork: 0x18,
} as const;

export type Address = { bus: string; addr: string };
