/** Buses of a PCI machine beside its own: each is a bridge, and has the number that addresses call it by. */
import Type, { type Static } from 'typebox';
import { device } from '../command-line/arguments.ts';
import { bridgeId, type Place } from '../command-line/slots.ts';
import { PciAddress } from '../definition/addresses.ts';
import { OneOf, strict } from '../definition/schema.ts';

export const BridgeInput = Type.Object(
  {
    index: Type.Integer({ minimum: 1, maximum: 255 }),
    model: OneOf(
      'pcie-root-port',
      'ioh3420',
      'x3130-upstream',
      'xio3130-downstream',
      'pcie-pci-bridge',
      'i82801b11-bridge',
      'pci-bridge',
    ),
    address: PciAddress,
    /** number of the slot's chassis; without it the index */
    chassis: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    port: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    hotplug: Type.Optional(Type.Boolean()),
  },
  strict,
);
export type Bridge = Static<typeof BridgeInput>;

/** A bridge comes after the one that it is behind: that has the lower index, as libvirt numbers them. */
export function bridgeArgs(bridges: readonly Bridge[], place: Place): string[] {
  return bridges
    .toSorted((a, b) => a.index - b.index)
    .flatMap((bridge) =>
      device({
        driver: bridge.model,
        id: bridgeId(bridge.index),
        ...slotNumbers(bridge),
        ...(bridge.hotplug === undefined ? {} : { [hotplugProperty(bridge)]: bridge.hotplug }),
        ...place(bridge.address, 0),
      }),
    );
}

function slotNumbers({ model, index, chassis = index, port }: Bridge): Record<string, unknown> {
  if (model === 'pci-bridge') return { chassis_nr: chassis };
  if (model === 'pcie-pci-bridge' || model === 'i82801b11-bridge' || model === 'x3130-upstream') return {};
  return { chassis, ...(port === undefined ? {} : { port }) };
}

function hotplugProperty({ model }: Bridge): string {
  return model === 'pci-bridge' ? 'shpc' : 'hotplug';
}
