/** Guests of libvirt's, taken over by the command line. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { findQemu } from '../../src/qemu/build/binary.ts';
import { Lab, testBoot } from '../support/lab.ts';
import { changeContent, contentOf } from '../support/rules.ts';

const run = promisify(execFile);
const UUID = '5ca1ab1e-1111-4000-8000-000000000001';

test('a guest of libvirt is imported, started, saved live and restored with its disks', async () => {
  await using lab = await Lab.create();
  const from = await makeHost(lab);

  const dry = await lab.cli(['import', 'libvirt', 'web1', '--from', from, '--dry-run']);
  assert.equal(dry.status, 0, dry.stderr);
  const definition: { uuid: string; networks: { mac: string }[] } = parse(dry.stdout);
  assert.deepEqual([definition.uuid, definition.networks[0]?.mac], [UUID, '52:54:00:aa:bb:01']);
  assert.deepEqual(await lab.client.listGuests(), [], 'nothing was defined');

  const done = await lab.cli(['import', 'libvirt', '--from', from]);
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /^defined web1: 128 MiB memory, 2 CPUs, 3 disks, pc-q35-/);
  assert.match(done.stderr, /web1: warning: libvirt starts it when the host boots/);
  assert.equal((await lab.client.getGuest('web1')).uuid, UUID);

  await lab.client.start('web1');
  const witness = await lab.witness('web1');
  await witness.fill(7, 16);
  assert.deepEqual(Object.keys((await witness.status()).disks).toSorted(), ['sda', 'vda', 'vdb']);
  await witness.close();
  const before = await changeContent(lab, 'web1', 2);
  const image = await lab.client.createSaveImage('web1', { name: 'first', live: true });
  assert.equal(image.disks.length, 3);
  assert.ok(await writesDirectly(lab, 'web1', 'vda'), 'a new head is opened with the cache mode of its disk');
  await changeContent(lab, 'web1', 3);
  await lab.client.restoreSaveImage('web1', 'first');
  assert.deepEqual(await contentOf(lab, 'web1'), before);
});

test('a Windows Server with secure boot and a TPM starts from its domain, is saved live and restored', async () => {
  await using lab = await Lab.create();
  const from = join(lab.home, 'libvirt');
  await mkdir(from);
  const fixture = await readFile(join(import.meta.dirname, '../libvirt/fixtures/windows.xml'), 'utf8');
  // Its disks and its network as they are here, and its variables in a file that was never made.
  const domain = fixture
    .replaceAll('/var/lib/libvirt/images', lab.home)
    .replaceAll('4194304', '262144')
    .replace("type='bridge'>", "type='user'>")
    .replace("<source bridge='br0'/>", '')
    .replaceAll('/etc/libvirt', lab.home);
  await writeFile(join(from, 'windows.xml'), domain);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', join(lab.home, 'windows.qcow2'), '64M']);
  await writeFile(join(lab.home, 'virtio-win.iso'), Buffer.alloc(1024 ** 2));

  const done = await lab.cli(['import', 'libvirt', 'windows', '--from', from]);
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stderr, /<tpm>: begins empty/);
  assert.match(done.stderr, /<nvram>: .*windows_VARS\.fd is not there: it starts with new variables/);
  await lab.client.start('windows');
  const image = await lab.client.createSaveImage('windows', { name: 'first', live: true });
  assert.equal(image.state, 'ready');
  await lab.client.restoreSaveImage('windows', 'first');
  assert.equal((await lab.client.getGuest('windows')).state, 'running');
});

test('a domain is defined from stdin; what is not supported is an error by line, or a warning', async () => {
  await using lab = await Lab.create();
  const from = await makeHost(lab);
  const domain = (await readFile(join(from, 'web1.xml'), 'utf8')).replace(
    '<devices>',
    '<devices>\n<hostdev/>',
  );
  const strict = await lab.cli(['define', '-'], { input: domain });
  assert.equal(strict.status, 4);
  assert.match(strict.stderr, /line 15: <hostdev>: is not supported/);
  assert.deepEqual(await lab.client.listGuests(), []);
  const lenient = await lab.cli(['define', '-', '--lenient'], { input: domain });
  assert.equal(lenient.status, 0, lenient.stderr);
  assert.match(lenient.stderr, /warning: left out: line 15: <hostdev>/);
  assert.equal((await lab.client.getGuest('web1')).uuid, UUID);
});

test('a guest that libvirt is running is left alone, and the others are imported', async () => {
  await using lab = await Lab.create();
  const from = await makeHost(lab);
  const other = (await readFile(join(from, 'web1.xml'), 'utf8'))
    .replaceAll('web1', 'web2')
    .replace(UUID, UUID.replace(/1$/, '2'))
    .replace('bb:01', 'bb:02');
  await writeFile(join(from, 'web2.xml'), other);
  await makeDisks(lab, 'web2');
  const running = spawn(
    (await findQemu()).path,
    ['-machine', 'none', '-display', 'none', '-S', '-uuid', UUID],
    {
      stdio: 'ignore',
    },
  );
  try {
    await once(running, 'spawn');
    const { status, stdout, stderr } = await lab.cli(['import', 'libvirt', '--from', from]);
    assert.equal(status, 4);
    assert.match(stderr, new RegExp(`guest web1 is running under libvirt \\(process ${running.pid}\\)`));
    assert.match(stdout, /imported 1 of 2/);
    assert.deepEqual(
      (await lab.client.listGuests()).map(({ name }) => name),
      ['web2'],
    );
  } finally {
    running.kill('SIGKILL');
    await once(running, 'exit');
  }
});

test('two devices in one place, and devices that QEMU has not got, are refused before anything is kept', async () => {
  await using lab = await Lab.create();
  const define = (extra: Record<string, unknown>) =>
    lab.client.defineGuest({ name: 'web1', memory: '64MiB', accelerator: 'tcg', ...extra });
  await assert.rejects(define({ rng: { address: '00:07.0' }, balloon: {} }), {
    code: 'invalid-definition',
    message: /balloon .* and rng .* are both at pcie\.0 0x7\.0x0/,
  });
  await assert.rejects(define({ balloon: { address: '05:00.0' } }), {
    code: 'invalid-definition',
    message: /there is no bus 05/,
  });
  assert.deepEqual(await lab.client.listGuests(), []);
});

/** A directory as libvirt has one, with the test guest in it. @returns its path */
async function makeHost(lab: Lab): Promise<string> {
  const directory = join(lab.home, 'libvirt');
  await mkdir(join(directory, 'autostart'), { recursive: true });
  await writeFile(join(directory, 'autostart', 'web1.xml'), '');
  await makeDisks(lab, 'web1');
  await writeFile(join(directory, 'web1.xml'), domainXml(lab.home));
  return directory;
}

async function makeDisks(lab: Lab, guest: string): Promise<void> {
  for (const disk of ['vda', 'vdb', 'sda'])
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', join(lab.home, `${guest}-${disk}.qcow2`), '64M']);
}

/** Devices behind ports and bridges, as libvirt places them. */
function domainXml(home: string): string {
  const { kernel, initrd, cmdline } = testBoot();
  const pci = (bus: number, slot = 0, more = '') =>
    `<address type='pci' domain='0x0000' bus='0x${bus.toString(16).padStart(2, '0')}' slot='0x${slot.toString(16).padStart(2, '0')}' function='0x0'${more}/>`;
  const port = (index: number) => `<controller type='pci' index='${index}' model='pcie-root-port'>
<model name='pcie-root-port'/><target chassis='${index}' port='0x${(15 + index).toString(16)}'/>
<address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x${index - 1}'${index === 1 ? " multifunction='on'" : ''}/></controller>`;
  return `<!-- WARNING: THIS IS AN AUTO-GENERATED FILE -->
<domain type='qemu'>
<name>web1</name>
<uuid>${UUID}</uuid>
<memory unit='KiB'>131072</memory><currentMemory unit='KiB'>131072</currentMemory>
<vcpu placement='static'>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>${kernel}</kernel><initrd>${initrd}</initrd>
<cmdline>${cmdline}</cmdline></os>
<features><acpi/><apic/></features>
<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
<clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='no'/></clock>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap'/>
<source file='${home}/web1-vda.qcow2'/><target dev='vda' bus='virtio'/><boot order='1'/>${pci(3)}</disk>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='writethrough' detect_zeroes='on'/>
<source file='${home}/web1-vdb.qcow2'/><target dev='vdb' bus='virtio'/><serial>NUMBER-2</serial>${pci(5, 1)}</disk>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${home}/web1-sda.qcow2'/>
<target dev='sda' bus='scsi'/><address type='drive' controller='0' bus='0' target='0' unit='2'/></disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='sdb' bus='sata'/><readonly/>
<address type='drive' controller='0' bus='0' target='0' unit='1'/></disk>
<controller type='pci' index='0' model='pcie-root'/>
${[1, 2, 3, 4].map(port).join('\n')}
<controller type='pci' index='5' model='pcie-to-pci-bridge'><model name='pcie-pci-bridge'/>${pci(4)}</controller>
<controller type='scsi' index='0' model='virtio-scsi'>${pci(2)}</controller>
<controller type='sata' index='0'><address type='pci' domain='0x0000' bus='0x00' slot='0x1f' function='0x2'/></controller>
<controller type='usb' index='0' model='none'/>
<interface type='user'><mac address='52:54:00:aa:bb:01'/><model type='virtio'/>${pci(1)}</interface>
<serial type='pty'><target type='isa-serial' port='0'><model name='isa-serial'/></target></serial>
<console type='pty'><target type='serial' port='0'/></console>
<input type='mouse' bus='ps2'/><input type='keyboard' bus='ps2'/>
<video><model type='vga' vram='16384' heads='1' primary='yes'/>${pci(0, 1)}</video>
<watchdog model='itco' action='reset'/>
<memballoon model='virtio'>${pci(5, 2)}</memballoon>
<rng model='virtio'><backend model='random'>/dev/urandom</backend>${pci(5, 3)}</rng>
</devices>
</domain>
`;
}

const O_DIRECT = 0o40000;

/** Whether the file that a disk is written to is open for direct I/O. */
async function writesDirectly(lab: Lab, guest: string, disk: string): Promise<boolean> {
  const { pid, disks } = await lab.client.getGuest(guest);
  const head = disks.find(({ name }) => name === disk)?.head;
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    if ((await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')) !== head) continue;
    const [, flags = '0'] = /flags:\s+(\d+)/.exec(await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8')) ?? [];
    return (Number.parseInt(flags, 8) & O_DIRECT) !== 0;
  }
  return false;
}
