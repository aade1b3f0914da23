import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StasisError } from '../../src/errors.ts';
import { commandLine } from '../../src/guests/command-line.ts';
import { pinDefinition, type Definition, type HostChoices } from '../../src/guests/definition.ts';
import { parseMemory } from '../../src/guests/definition/memory.ts';

const HOST: HostChoices = {
  resolveMachine: (machine) => Promise.resolve(machine === 'q35' ? 'pc-q35-10.0' : machine),
  resolveAccelerator: (wanted) => Promise.resolve(wanted === 'kvm' ? 'kvm' : 'tcg'),
  resolveFirmware: ({ secureBoot }) =>
    Promise.resolve({
      firmware: {
        ...{ type: 'uefi', secureBoot, smm: secureBoot },
        code: { path: '/fw/code', format: 'raw' },
        template: { path: '/fw/vars', format: 'raw' },
      },
      store: { name: 'uefi-vars', path: '/own/vars', format: 'raw', bus: 'pflash', readonly: false },
    }),
};
const pin = (input: unknown): Promise<Definition> => pinDefinition(input, '/srv/vms', HOST);

test('memory is read in binary units, whatever their spelling', () => {
  for (const text of ['2GiB', '2G', '2 GB', '2gib', '2048MiB', '2048M', String(2 * 1024 ** 3)])
    assert.equal(parseMemory(text), 2 * 1024 ** 3, text);
  assert.equal(parseMemory('1.5GiB'), 1536 * 1024 ** 2);
  for (const text of ['', 'GiB', '-1G', '1', '1.3MiB', '2 gigabytes', '1e9G', '17MiBs'])
    assert.throws(() => parseMemory(text), { code: 'invalid-definition' }, text);
});

test('what is not said is chosen once and kept', async () => {
  const definition = await pin({
    name: 'web1',
    memory: '1GiB',
    networks: [{ type: 'user' }],
    disks: [{ name: 'root', path: 'root.qcow2', format: 'qcow2' }],
  });
  assert.match(definition.uuid, /^[0-9a-f-]{36}$/);
  assert.match(definition.networks[0]?.mac ?? '', /^52:54:00(:[0-9a-f]{2}){3}$/);
  assert.equal(definition.machine, 'pc-q35-10.0');
  assert.equal(definition.disks[0]?.path, '/srv/vms/root.qcow2');
});

test('whatever is given as a definition is pinned or refused with a typed error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.anything(), async (input) => {
      await assert.rejects(
        pin(input),
        (error) => error instanceof StasisError && error.code === 'invalid-definition',
      );
    }),
    { numRuns: 300 },
  );
});

test('devices have addresses of their own that do not depend on each other', async () => {
  const disk = (name: string, bus: string) => ({ name, path: `/d/${name}`, format: 'qcow2', bus });
  const all = await pin({
    name: 'a',
    memory: '1GiB',
    graphics: 'vnc',
    agent: true,
    networks: [{ type: 'user' }, { type: 'tap', tap: 't0' }],
    disks: [disk('a', 'virtio'), disk('b', 'sata'), disk('c', 'scsi'), disk('d', 'virtio')],
  });
  const few = await pin({
    name: 'a',
    memory: '1GiB',
    networks: [{ type: 'user' }],
    disks: [disk('a', 'virtio')],
  });
  const addresses = (definition: Definition) =>
    new Map(
      commandLine(definition, { chains: new Map() })
        .filter((argument) => argument.startsWith('{"driver"'))
        .map((argument): { id: string; bus?: string; addr?: string } => JSON.parse(argument))
        .filter(({ addr }) => addr !== undefined)
        .map(({ id, bus, addr }) => [id, `${bus} ${addr}`]),
    );
  assert.equal(new Set(addresses(all).values()).size, addresses(all).size, 'no address is given twice');
  for (const [id, address] of addresses(few)) assert.equal(addresses(all).get(id), address);
});

test('a guest that says no addresses has the devices that it had in the first version, one after the other', async () => {
  const definition = await pin({
    name: 'a',
    memory: '1GiB',
    graphics: 'vnc',
    agent: true,
    networks: [{ type: 'user', mac: '52:54:00:00:00:01' }],
    disks: [
      { name: 'a', path: '/d/a', format: 'qcow2' },
      { name: 'b', path: '/d/b', format: 'raw', bus: 'sata', readonly: true },
      { name: 'c', path: '/d/c', format: 'qcow2', bus: 'scsi' },
    ],
  });
  const devices = commandLine({ ...definition, generation: 'g' }, { chains: new Map() })
    .filter((_, index, all) => all[index - 1] === '-device')
    .map((argument): Record<string, unknown> => JSON.parse(argument));
  assert.deepEqual(devices, [
    { driver: 'vmgenid', id: 'generation', guid: 'g' },
    { driver: 'isa-serial', id: 'serial0-device', chardev: 'serial0' },
    { driver: 'virtio-serial-pci', id: 'channels', bus: 'pcie.0', addr: '0x3' },
    {
      driver: 'virtserialport',
      id: 'agent0-device',
      bus: 'channels.0',
      nr: 1,
      chardev: 'agent0',
      name: 'org.qemu.guest_agent.0',
    },
    { driver: 'VGA', id: 'screen', bus: 'pcie.0', addr: '0x2' },
    { driver: 'qemu-xhci', id: 'usb', bus: 'pcie.0', addr: '0x5' },
    { driver: 'usb-tablet', id: 'tablet', bus: 'usb.0', port: '1' },
    { driver: 'virtio-scsi-pci', id: 'scsi', bus: 'pcie.0', addr: '0x4' },
    {
      driver: 'virtio-blk-pci',
      id: 'disk-a',
      drive: 'plain-a',
      bootindex: 1,
      serial: 'a',
      bus: 'pcie.0',
      addr: '0x8',
    },
    { driver: 'ide-cd', id: 'disk-b', drive: 'plain-b', bootindex: 2, bus: 'ide.0' },
    { driver: 'scsi-hd', id: 'disk-c', drive: 'plain-c', bootindex: 3, bus: 'scsi.0', 'scsi-id': 0 },
    {
      driver: 'virtio-net-pci',
      id: 'net0-device',
      netdev: 'net0',
      mac: '52:54:00:00:00:01',
      bus: 'pcie.0',
      addr: '0x18',
    },
  ]);
});
