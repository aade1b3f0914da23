/** The display: its server on the host, and the card in the guest. */
import Type, { type Static } from 'typebox';
import { device } from '../command-line/arguments.ts';
import { SLOT, type Place } from '../command-line/slots.ts';
import { PciAddress } from '../definition/addresses.ts';
import { OneOf, strict } from '../definition/schema.ts';

/** Without a port the server is on a socket of the run directory: nothing listens to a network that nobody asked for. */
export const GraphicsInput = Type.Union([
  OneOf('none', 'vnc', 'spice'),
  Type.Object(
    {
      type: OneOf('vnc', 'spice'),
      port: Type.Integer({ minimum: 5900, maximum: 65_535 }),
      /** a numeric address of the host; without it the host itself only */
      listen: Type.Optional(Type.String({ pattern: '^[0-9a-fA-F.:]{2,45}$' })),
    },
    strict,
  ),
]);
export type Graphics = Static<typeof GraphicsInput>;

const MIB = 1024 ** 2;

export const VideoInput = Type.Object(
  {
    model: OneOf('none', 'vga', 'virtio', 'virtio-gpu', 'qxl', 'bochs', 'cirrus', 'vmvga', 'ramfb'),
    /** of the card's memory; `vga`, `bochs`, `qxl` and `vmvga` have a choice */
    memoryMiB: Type.Optional(Type.Integer({ minimum: 1, maximum: 256 })),
    /** of qxl: its other two memories */
    ramMiB: Type.Optional(Type.Integer({ minimum: 1, maximum: 1024 })),
    vramMiB: Type.Optional(Type.Integer({ minimum: 0, maximum: 1024 })),
    heads: Type.Optional(Type.Integer({ minimum: 1, maximum: 16 })),
    address: Type.Optional(PciAddress),
  },
  strict,
);
export type Video = Static<typeof VideoInput>;

const VNC_SOCKET = 'vnc.sock';
const SPICE_SOCKET = 'spice.sock';
const HOST_ITSELF = '127.0.0.1';

/** A socket of the run directory, or a port of the host. */
export type VncServer = { readonly socket: string } | { readonly host: string; readonly port: number };

/** Where a guest's VNC server listens; undefined when it has none. */
export function vncServer(graphics: Graphics): VncServer | undefined {
  if (graphics === 'vnc') return { socket: VNC_SOCKET };
  if (typeof graphics === 'string' || graphics.type !== 'vnc') return undefined;
  return { host: graphics.listen ?? HOST_ITSELF, port: graphics.port };
}

export function isSpice(graphics: Graphics): boolean {
  return graphics === 'spice' || (typeof graphics === 'object' && graphics.type === 'spice');
}

export function graphicsArgs(graphics: Graphics, video: Video | undefined, place: Place): string[] {
  const model = video ?? { model: graphics === 'none' ? 'none' : 'vga' };
  return [...videoArgs(model, place), ...serverArgs(graphics)];
}

function serverArgs(graphics: Graphics): string[] {
  switch (graphics) {
    case 'none':
      return [];
    case 'vnc':
      return ['-vnc', `unix:${VNC_SOCKET}`];
    case 'spice':
      return ['-spice', `unix=on,addr=${SPICE_SOCKET},disable-ticketing=on`];
    default: {
      const { type, port, listen = HOST_ITSELF } = graphics;
      if (type === 'spice') return ['-spice', `addr=${listen},port=${port},disable-ticketing=on`];
      const host = listen.includes(':') ? `[${listen}]` : listen;
      return ['-vnc', `${host}:${port - 5900}`]; // VNC counts displays, and the first is port 5900
    }
  }
}

function videoArgs({ model, memoryMiB, ramMiB, vramMiB, heads, address }: Video, place: Place): string[] {
  if (model === 'none') return [];
  const at = { id: 'screen', ...place(address, SLOT.graphics) };
  const vgaMemory = memoryMiB === undefined ? {} : { vgamem_mb: memoryMiB };
  const outputs = heads === undefined ? {} : { max_outputs: heads };
  switch (model) {
    case 'vga':
      return device({ driver: 'VGA', ...at, ...vgaMemory });
    case 'cirrus':
      return device({ driver: 'cirrus-vga', ...at });
    case 'vmvga':
      return device({ driver: 'vmware-svga', ...at, ...vgaMemory });
    case 'bochs':
      return device({
        driver: 'bochs-display',
        ...at,
        ...(memoryMiB === undefined ? {} : { vgamem: memoryMiB * MIB }),
      });
    case 'virtio':
      return device({ driver: 'virtio-vga', ...at, ...outputs });
    case 'virtio-gpu':
      return device({ driver: 'virtio-gpu-pci', ...at, ...outputs });
    case 'qxl':
      return device({
        driver: 'qxl-vga',
        ...at,
        ...outputs,
        ...vgaMemory,
        ...(ramMiB === undefined ? {} : { ram_size: ramMiB * MIB }),
        ...(vramMiB === undefined ? {} : { vram_size: vramMiB * MIB }),
      });
    case 'ramfb':
      return device({ driver: 'ramfb', id: 'screen' });
    default:
      return model satisfies never;
  }
}
