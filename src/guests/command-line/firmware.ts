/** Code and variables of UEFI are two flash chips; the second is a disk as far as Stasis is concerned. */
import { VARIABLE_STORE, type Definition } from '../definition.ts';
import { nodeName, type MachineDisks } from './disks.ts';

const FIRMWARE_NODE = 'firmware';

export function firmwareArgs({ firmware }: Definition, { chains }: MachineDisks): string[] {
  if (firmware === 'bios') return [];
  const { code, smm } = firmware;
  const file = { driver: 'file', filename: code.path };
  const node = { driver: code.format, 'node-name': FIRMWARE_NODE, 'read-only': true, file };
  const [variables] = chains.get(VARIABLE_STORE) ?? [];
  const flash = `pflash0=${FIRMWARE_NODE},pflash1=${nodeName(variables?.id ?? '')}`;
  return [
    ...['-blockdev', JSON.stringify(node), '-machine', `${flash}${smm ? ',smm=on' : ''}`],
    // Only code in system management mode may write to it.
    ...(smm ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
  ];
}
