/** Domains of libvirt's as definitions: what comes out, and that nothing is dropped in silence. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { readDomain, type ReadDomain } from '../../src/libvirt/domain.ts';
import { isHarmless } from '../../src/libvirt/harmless.ts';
import { parseXml, type XmlNode } from '../../src/libvirt/xml.ts';

const FIXTURES = join(import.meta.dirname, 'fixtures');
const fixture = (name: string): string => readFileSync(join(FIXTURES, name), 'utf8');
const DOMAINS = readdirSync(FIXTURES).filter((name) => name.endsWith('.xml'));

/** A whole domain around some devices. */
const domainOf = (devices: string, rest = ''): string => `<domain type='kvm'>
<name>web1</name>
<memory unit='GiB'>1</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
${rest}
<devices>
${devices}
</devices>
</domain>`;
const read = (devices: string, rest = ''): Promise<ReadDomain> =>
  readDomain(domainOf(devices, rest), 'web1.xml');
const told = ({ unsupported }: ReadDomain): string[] =>
  unsupported.map(({ line, what, message }) => `${line}: ${what} ${message}`);

// Made by `stasis import libvirt --from test/libvirt/fixtures NAME --dry-run`, and looked through.
for (const name of ['debian', 'debian-uefi', 'windows', 'old', 'many']) {
  test(`${name} is read as it always was`, async () => {
    const { definition, unsupported } = await readDomain(fixture(`${name}.xml`), name);
    assert.deepEqual(unsupported, []);
    assert.deepEqual(definition, parse(fixture(`${name}.yaml`)));
  });
}

test('what virt-install writes is read before libvirt has given it addresses', async () => {
  for (const name of ['debian', 'debian-uefi', 'windows', 'old']) {
    const { definition, unsupported } = await readDomain(fixture(`${name}.install.xml`), name);
    assert.deepEqual(unsupported, [], name);
    assert.equal(definition.disks?.[0]?.path, `/var/lib/libvirt/images/${name}.qcow2`);
    assert.deepEqual(definition.bridges, []);
  }
});

test('no attribute and no text can change without being told, unless it is known to mean nothing', async () => {
  let changed = 0;
  const unnoticed = new Set<string>();
  const seen = new Set<string>(); // root ports are all alike
  for (const name of DOMAINS) {
    const before = await readDomain(fixture(name), name);
    const root = await parseXml(fixture(name), name);
    for (const mutant of mutantsOf(root)) {
      if (seen.has(mutant.change)) continue;
      seen.add(mutant.change);
      const after = await readDomain(printXml(mutant.root), name);
      const isSame = JSON.stringify(withoutLines(after)) === JSON.stringify(withoutLines(before));
      if (isSame && !isInHarmless(mutant.path)) unnoticed.add(mutant.path);
      changed += 1;
    }
  }
  assert.deepEqual([...unnoticed], []);
  assert.ok(changed > 300, `${changed} changes`);
});

test('whatever is added anywhere is told with its element', async () => {
  const seen = new Set<string>();
  for (const name of DOMAINS) {
    const root = await parseXml(fixture(name), name);
    for (const { path, change, root: mutant } of additionsTo(root)) {
      if (seen.has(change)) continue;
      seen.add(change);
      const { unsupported } = await readDomain(printXml(mutant), name);
      const isTold = unsupported.some(({ what }) => what.includes('x-added'));
      assert.ok(isTold || isInHarmless(path), `${name}: an addition to ${path} is not told`);
    }
  }
});

test('what is not supported is told by line, and left out', async () => {
  const domain = await read(`<hostdev mode='subsystem' type='pci'><source/></hostdev>
<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2' iothread='1'/>
  <source file='/d/a.qcow2'><encryption format='luks'/></source>
  <target dev='vda' bus='virtio'/>
  <shareable/>
</disk>
<disk type='network' device='disk'><source protocol='rbd' name='p/i'/><target dev='vdb' bus='virtio'/></disk>
<filesystem type='mount'/>
<serial type='tcp'><target port='0'/></serial>
<interface type='direct'><source dev='eth0' mode='bridge'/></interface>`);
  assert.deepEqual(told(domain), [
    '7: <hostdev> is not supported',
    '9: <driver> iothread="1" is not supported',
    '10: <encryption> is not supported',
    '12: <shareable> is not supported',
    '14: <disk> is not supported',
    '15: <filesystem> is not supported',
    '16: <serial> is not supported',
    '17: <interface> is not supported',
  ]);
  assert.deepEqual(
    domain.definition.disks?.map(({ name }) => name),
    ['vda'],
  );
});

test('no port is opened but one that the domain names, and none whose password would be lost', async () => {
  const graphicsOf = async (attributes: string) =>
    (await read(`<graphics ${attributes}/>`)).definition.graphics;
  assert.equal(await graphicsOf("type='vnc' port='-1' autoport='yes' listen='0.0.0.0'"), 'vnc');
  assert.equal(await graphicsOf("type='vnc' port='5901' listen='0.0.0.0' passwd='secret'"), 'vnc');
  assert.deepEqual(await graphicsOf("type='vnc' port='5901' listen='0.0.0.0'"), {
    type: 'vnc',
    port: 5901,
    listen: '0.0.0.0',
  });
  assert.deepEqual(await graphicsOf("type='spice' port='5902' autoport='no'"), { type: 'spice', port: 5902 });
  assert.match(told(await read(`<graphics type='vnc' port='5901' passwd='secret'/>`)).join(), /passwd/);
});

test('processors, clocks and what Windows wants of them', async () => {
  const { definition, unsupported } = await read(
    '',
    `<vcpu current='2'>4</vcpu>
<cpu mode='host-passthrough' check='none' migratable='on'>
  <topology sockets='1' dies='1' cores='2' threads='2'/>
  <feature policy='require' name='vmx'/><feature policy='disable' name='hle'/>
  <maxphysaddr mode='passthrough'/>
</cpu>
<features><acpi/><apic/><kvm><hidden state='on'/></kvm>
  <hyperv mode='custom'><relaxed state='on'/><spinlocks state='on' retries='4096'/><stimer state='on'><direct state='on'/></stimer>
    <vendor_id state='on' value='Stasis'/><evmcs state='off'/><tlbflush state='on'><extended state='on'/></tlbflush></hyperv>
</features>
<clock offset='localtime'><timer name='rtc' tickpolicy='delay'/><timer name='hypervclock' present='yes'/>
  <timer name='kvmclock' present='no'/><timer name='tsc' frequency='2400000000'/></clock>`,
  );
  assert.deepEqual(unsupported, []);
  assert.equal(definition.cpus, 2);
  assert.deepEqual(definition.topology, { sockets: 1, dies: 1, cores: 2, threads: 2 });
  assert.equal(
    definition.cpu,
    'host-model,vmx=on,hle=off,host-phys-bits=on,kvm=off,kvmclock=off,tsc-frequency=2400000000',
  );
  assert.deepEqual(definition.hyperv, {
    time: true,
    relaxed: true,
    stimer: true,
    tlbflush: true,
    evmcs: false,
    stimerDirect: true,
    tlbflushExt: true,
    spinlocks: 4096,
    vendorId: 'Stasis',
  });
  assert.deepEqual(definition.clock, { base: 'localtime', rtcTicks: 'delay' });
});

test("a network of libvirt's is the bridge behind it, when that is known", async () => {
  const devices = `<interface type='network'><source network='lab'/><model type='virtio'/></interface>
<interface type='network'><source network='default'/><model type='virtio'/></interface>`;
  const unknown = await read(devices);
  assert.match(told(unknown).join(), /^7: <interface> which bridge the network "lab" is is not known/);
  assert.deepEqual(unknown.definition.networks?.[0], { type: 'bridge', bridge: 'virbr0', model: 'virtio' });
  const known = await readDomain(domainOf(devices), 'web1.xml', { bridges: new Map([['lab', 'virbr7']]) });
  assert.deepEqual(known.unsupported, []);
  assert.equal(known.definition.networks?.[0]?.bridge, 'virbr7');
});

test('what the QEMU of the guest has not got is told by line, and replaced', async () => {
  const devices = `<graphics type='spice' autoport='yes'/>
<video><model type='qxl' ram='65536' vram='65536' vgamem='16384' heads='1' primary='yes'/></video>
<redirdev bus='usb' type='spicevmc'/>`;
  const there = await read(devices);
  assert.deepEqual(told(there), []);
  const missing = new Set(['chardev-spicevmc', 'qxl-vga']);
  const without = await readDomain(domainOf(devices), 'web1.xml', { missing });
  assert.deepEqual(
    without.unsupported.map(({ line }) => line),
    [7, 8, 9],
  );
  assert.deepEqual([without.definition.graphics, without.definition.video], ['vnc', { model: 'vga' }]);
});

test('what is no domain is refused, and so is XML that could reach beyond itself', async () => {
  const refused = (text: string) =>
    assert.rejects(readDomain(text, 'web1.xml'), { code: 'invalid-definition', message: /^web1\.xml/ });
  await refused('<network><name>default</name></network>');
  await refused('<domain>\n<name>web1</nam></domain>');
  await refused(
    '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>',
  );
  await refused('<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><domain><name>&b;</name></domain>');
  await refused(`<domain><name>${'x'.repeat(1024 * 1024)}</name></domain>`);
  await refused('<domain><name>&undeclared;</name></domain>');
});

interface Mutant {
  readonly path: string;
  readonly change: string;
  readonly root: XmlNode;
}

/** The tree with one attribute, or one text, made into nonsense; for each of them in turn. */
function* mutantsOf(node: XmlNode, path = node.name): Generator<Mutant> {
  for (const [name, value] of node.attributes) {
    const attributes = new Map(node.attributes).set(name, `${value}-nonsense`);
    yield { path: `${path}/@${name}`, change: `${path} ${name} ${value}`, root: { ...node, attributes } };
  }
  if (node.text !== '')
    yield { path, change: `${path} ${node.text}`, root: { ...node, text: `${node.text}9` } };
  yield* inChildren(node, path, mutantsOf);
}

/** The tree with one attribute or element more, at each element in turn. */
function* additionsTo(node: XmlNode, path = node.name): Generator<Mutant> {
  yield {
    path,
    change: `${path} attribute`,
    root: { ...node, attributes: new Map(node.attributes).set('x-added', '1') },
  };
  const child: XmlNode = { name: 'x-added', line: 0, attributes: new Map(), children: [], text: '' };
  yield { path, change: `${path} child`, root: { ...node, children: [...node.children, child] } };
  yield* inChildren(node, path, additionsTo);
}

function* inChildren(
  node: XmlNode,
  path: string,
  variants: (child: XmlNode, path: string) => Generator<Mutant>,
): Generator<Mutant> {
  for (const [index, child] of node.children.entries()) {
    for (const variant of variants(child, `${path}/${child.name}`))
      yield { ...variant, root: { ...node, children: node.children.with(index, variant.root) } };
  }
}

function isInHarmless(path: string): boolean {
  const parts = path.split('/');
  return parts.some((_, index) => isHarmless(parts.slice(0, index + 1).join('/')));
}

function printXml({ name, attributes, children, text }: XmlNode): string {
  const words = [...attributes].map(([key, value]) => ` ${key}="${escaped(value)}"`).join('');
  const plain = name.replace(':', '-'); // in notes of other programs only
  return `<${plain}${words}>${escaped(text)}${children.map(printXml).join('')}</${plain}>`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}

/** Everything is on one line when it is printed again. */
function withoutLines({ definition, unsupported, notes }: ReadDomain): unknown {
  const plain = (findings: ReadDomain['notes']) =>
    findings.map(({ what, message }) => `${what} ${message}`).toSorted();
  return { definition, unsupported: plain(unsupported), notes: plain(notes) };
}
