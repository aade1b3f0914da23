/** Network cards of a domain, and what they are plugged into. */
import type { DefinitionInput } from '../guests/definition.ts';
import { pciAddress } from './address.ts';
import { bootOrder } from './boot.ts';
import type { Context } from './context.ts';
import type { Element } from './element.ts';

type Network = NonNullable<DefinitionInput['networks']>[number];

const MODELS = {
  virtio: 'virtio',
  'virtio-transitional': 'virtio-transitional',
  'virtio-non-transitional': 'virtio-non-transitional',
  e1000: 'e1000',
  e1000e: 'e1000e',
  igb: 'igb',
  rtl8139: 'rtl8139',
  vmxnet3: 'vmxnet3',
} as const;

/** The network that libvirt makes on every host, by this bridge. */
const DEFAULT_NETWORK = { name: 'default', bridge: 'virbr0' } as const;

export function readNetworks(devices: Element, context: Context): Network[] {
  return devices.children('interface').flatMap((element) => {
    const plug = readPlug(element, context);
    if (plug === undefined) return [];
    element.take();
    element.child('target'); // the name of a tap that is made anew each time
    element.child('driver');
    const mac = element.child('mac')?.attribute('address');
    const model = element.child('model')?.choice('type', MODELS);
    const mtu = element.child('mtu')?.number('size');
    const address = pciAddress(element);
    element.child('link')?.choice('state', { up: true });
    return [
      {
        ...plug,
        ...(mac === undefined ? {} : { mac }),
        model: model ?? 'rtl8139', // libvirt's own choice for x86
        ...(mtu === undefined ? {} : { mtu }),
        ...bootOrder(element),
        ...(address === undefined ? {} : { address }),
      },
    ];
  });
}

type Plug = Pick<Network, 'type' | 'bridge' | 'tap'>;

/** @returns undefined for what is not supported, which stays untaken */
function readPlug(element: Element, context: Context): Plug | undefined {
  switch (element.peek('type')) {
    case 'user':
      element.attribute('type');
      return { type: 'user' };
    case 'bridge': {
      element.attribute('type');
      const bridge = element.child('source')?.attribute('bridge');
      if (bridge === undefined) context.problem(element, 'names no bridge');
      return bridge === undefined ? undefined : { type: 'bridge', bridge };
    }
    case 'ethernet': {
      element.attribute('type');
      const target = element.child('target');
      target?.choice('managed', { no: false });
      const tap = target?.attribute('dev');
      if (tap === undefined) context.problem(element, 'names no tap: libvirt would make one');
      return tap === undefined ? undefined : { type: 'tap', tap };
    }
    case 'network':
      return readVirtualNetwork(element, context);
    case undefined:
    default:
      return undefined;
  }
}

/** A network of libvirt's is a bridge of the host; address translation and DHCP behind it stay libvirt's affair. */
function readVirtualNetwork(element: Element, context: Context): Plug | undefined {
  const source = element.child('source');
  const network = source?.attribute('network') ?? '';
  const known = source?.attribute('bridge') ?? context.options.bridges?.get(network);
  const bridge = known ?? (network === DEFAULT_NETWORK.name ? DEFAULT_NETWORK.bridge : undefined);
  if (bridge === undefined) {
    context.problem(
      element,
      `which bridge the network "${network}" is is not known: write type="bridge" and the bridge`,
    );
    element.takeAll();
    return undefined;
  }
  element.attribute('type');
  context.note(
    element,
    `is on the bridge ${bridge}: the network "${network}" has to be up on this host, and /etc/qemu/bridge.conf to allow it`,
  );
  return { type: 'bridge', bridge };
}
