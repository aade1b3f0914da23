/** A sound card. It is silent: the guest has the device it knows, and nothing on the host plays. */
import Type, { type Static } from 'typebox';
import { device } from '../command-line/arguments.ts';
import { SLOT, type Place } from '../command-line/slots.ts';
import { PciAddress } from '../definition/addresses.ts';
import { OneOf, strict } from '../definition/schema.ts';

export const SoundInput = Type.Object(
  { model: OneOf('ich6', 'ich9', 'ac97', 'es1370'), address: Type.Optional(PciAddress) },
  strict,
);
export type Sound = Static<typeof SoundInput>;

const AUDIO = 'audio0';

export function soundArgs({ model, address }: Sound, place: Place): string[] {
  const host = ['-audiodev', JSON.stringify({ driver: 'none', id: AUDIO })];
  const at = { id: 'sound', ...place(address, SLOT.sound) };
  if (model === 'ac97') return [...host, ...device({ driver: 'AC97', ...at, audiodev: AUDIO })];
  if (model === 'es1370') return [...host, ...device({ driver: 'ES1370', ...at, audiodev: AUDIO })];
  return [
    ...host,
    ...device({ driver: model === 'ich9' ? 'ich9-intel-hda' : 'intel-hda', ...at }),
    ...device({ driver: 'hda-duplex', id: 'sound-codec', bus: 'sound.0', cad: 0, audiodev: AUDIO }),
  ];
}
