/**
 * Where a device is, when that is to be said: guests brought from elsewhere must see their devices where they were.
 * Without an address a device has a fixed place of its own, or the next free one of its bus.
 */
import Type from 'typebox';

/**
 * `BUS:SLOT.FUNCTION` in hexadecimal, as lspci writes it. Bus 00 is the machine's own, others are bridges of the
 * definition by their index. A `+` says that the slot has more functions, which the first one must tell.
 */
export const PciAddress = Type.String({ pattern: '^[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]\\+?$' });
/** `CONTROLLER:PORT`, the port with those of the hubs before it: `0:1`, `0:2.4`. */
export const UsbAddress = Type.String({ pattern: '^\\d{1,2}:\\d{1,2}(\\.\\d{1,2}){0,4}$' });
/** `CONTROLLER:BUS:TARGET:UNIT`, of which an IDE drive has no target, a SATA one only the unit, a SCSI one no bus. */
export const DriveAddress = Type.String({ pattern: '^\\d{1,2}:\\d{1,2}:\\d{1,3}:\\d{1,5}$' });
/** `CONTROLLER:PORT` of a channel. */
export const PortAddress = Type.String({ pattern: '^\\d{1,2}:\\d{1,2}$' });
