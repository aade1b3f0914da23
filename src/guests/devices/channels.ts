/** Channels between programs of the host and of the guest, known by name. */
import Type, { type Static } from 'typebox';
import { device, socketChardev } from '../command-line/arguments.ts';
import { PortAddress } from '../definition/addresses.ts';
import { strict } from '../definition/schema.ts';
import { controllerId } from './controllers.ts';

export const ChannelInput = Type.Object(
  { name: Type.String({ pattern: '^[A-Za-z0-9._-]{1,64}$' }), address: PortAddress },
  strict,
);
export type Channel = Static<typeof ChannelInput>;

const AGENT_NAME = 'org.qemu.guest_agent.0';
const SPICE_NAME = 'com.redhat.spice.0';

export const AGENT_SOCKET = 'agent.sock';
/** The name under which QEMU knows the agent's channel. */
export const AGENT_CHARDEV = 'agent0';

/** @param spice whether there is a SPICE server for the channel of its own agent */
export function channelArgs(channels: readonly Channel[], agent: boolean, spice: boolean): string[] {
  const isTold = channels.some(({ name }) => name === AGENT_NAME);
  const all = agent && !isTold ? [...channels, { name: AGENT_NAME, address: '0:1' }] : channels;
  return all.flatMap(({ name, address }) => {
    const [number = '0', port = '1'] = address.split(':');
    const chardev = name === AGENT_NAME ? AGENT_CHARDEV : `channel-${number}-${port}`;
    return [
      ...hostSide(name, chardev, agent, spice),
      ...device({
        driver: 'virtserialport',
        id: `${chardev}-device`,
        bus: `${controllerId('channels', Number(number))}.0`,
        nr: Number(port),
        chardev,
        name,
      }),
    ];
  });
}

/** A channel that nobody on the host listens to is there for the guest all the same. */
function hostSide(name: string, chardev: string, agent: boolean, spice: boolean): string[] {
  if (name === AGENT_NAME && agent) return socketChardev(AGENT_CHARDEV, AGENT_SOCKET);
  if (name === SPICE_NAME && spice) return ['-chardev', `spicevmc,id=${chardev},name=vdagent`];
  return ['-chardev', `null,id=${chardev}`];
}
