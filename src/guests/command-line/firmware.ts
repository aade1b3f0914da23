/** UEFI and TPM. */
import { TPM_SOCKET } from '../../qemu/tpm.ts';
import type { Definition } from '../definition.ts';
import { VARIABLE_STORE } from '../definition/disks.ts';
import { device } from './arguments.ts';
import { nodeName, type MachineDisks } from './disks.ts';

const FIRMWARE_NODE = 'firmware';

/** Code and variables of UEFI are two flash chips; the second is a disk as far as Stasis is concerned. */
export function firmwareArgs({ firmware }: Definition, { chains }: MachineDisks): string[] {
  if (firmware === 'bios') return [];
  const { code, smm } = firmware;
  const file = { driver: 'file', filename: code.path };
  const node = { driver: code.format, 'node-name': FIRMWARE_NODE, 'read-only': true, file };
  const [variables] = chains.get(VARIABLE_STORE) ?? [];
  const flash = `pflash0=${FIRMWARE_NODE},pflash1=${nodeName(variables?.id ?? '')}`;
  return [
    ...['-blockdev', JSON.stringify(node), '-machine', `${flash},smm=${smm ? 'on' : 'auto'}`],
    // Only code in system management mode may write to it.
    ...(smm ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
  ];
}

/** The newer interface, which the older machine hasn't got. */
export function tpmArgs({ tpm, machine }: Definition): string[] {
  if (tpm !== true) return [];
  const driver = machine.startsWith('pc-i440fx') ? 'tpm-tis' : 'tpm-crb';
  return [
    ...['-chardev', `socket,id=tpm0,path=${TPM_SOCKET}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm0'],
    ...device({ driver, id: 'tpm0-device', tpmdev: 'tpm0' }),
  ];
}
