/** Whether a machine can be made at all, before anything is kept of it. */
import { StasisError } from '../errors.ts';
import { commandLine } from './command-line.ts';
import { bridgeId } from './command-line/slots.ts';
import type { Definition } from './definition.ts';
import { invalid } from './definition/schema.ts';
import { isSpice } from './devices/graphics.ts';

interface Device {
  readonly driver: string;
  readonly id?: string;
  readonly bus?: string;
  readonly addr?: string;
}

/**
 * @param types what this QEMU can make
 * @throws StasisError `invalid-definition` when two devices are in one place; `unsupported` with
 *   `details.missing` when this QEMU hasn't one of them
 */
export function checkDevices(definition: Definition, types: ReadonlySet<string>): void {
  const devices = devicesOf(definition);
  const bridges = new Set((definition.bridges ?? []).map(({ index }) => bridgeId(index)));
  const places = new Map<string, Device>();
  for (const found of devices.filter(({ addr }) => addr !== undefined)) {
    const [, index] = /^pci\.([1-9]\d*)$/.exec(found.bus ?? '') ?? [];
    if (index !== undefined && !bridges.has(bridgeId(Number(index)))) throw noBus(found, Number(index));
    const place = `${found.bus} ${found.addr?.includes('.') ? found.addr : `${found.addr}.0x0`}`;
    const other = places.get(place);
    if (other !== undefined)
      throw invalid(`${nameOf(found)} and ${nameOf(other)} are both at ${place}; give one another address`);
    places.set(place, found);
  }
  const wanted = [
    ...devices.map(({ driver }) => driver),
    ...(isSpice(definition.graphics) ? ['chardev-spicevmc'] : []),
  ];
  const missing = wanted.find((type) => !types.has(type));
  if (missing !== undefined) throw notThere(definition.name, missing);
}

function noBus(found: Device, index: number): StasisError {
  const bus = index.toString(16).padStart(2, '0');
  return invalid(
    `${nameOf(found)}: there is no bus ${bus}; give it another address, or name a bridge ${index}`,
  );
}

function devicesOf(definition: Definition): Device[] {
  return commandLine({ ...definition, qemu: { args: [] } }, { chains: new Map() })
    .filter(
      (argument) =>
        argument.startsWith('{"driver"') &&
        !argument.includes('"node-name"') &&
        !argument.startsWith('{"driver":"none"'),
    )
    .map((argument): Device => JSON.parse(argument));
}

function nameOf({ id, driver }: Device): string {
  return id === undefined ? driver : `${id} (${driver})`;
}

function notThere(guest: string, missing: string): StasisError {
  const isSpicePart = /spice|qxl/.test(missing);
  const what = missing === 'chardev-spicevmc' ? 'SPICE' : `the device ${missing}`;
  const cure = isSpicePart
    ? 'install it (Debian: qemu-system-modules-spice), or take graphics vnc and video vga'
    : 'take another';
  return new StasisError('unsupported', `guest ${guest}: this QEMU has not got ${what}; ${cure}`, {
    guest,
    details: { missing },
  });
}
