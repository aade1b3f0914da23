/** Small devices that help a guest: randomness, balloon, watchdog, and a way to tell that it panicked. */
import Type, { type Static } from 'typebox';
import { device } from '../command-line/arguments.ts';
import { SLOT, type Place } from '../command-line/slots.ts';
import { PciAddress } from '../definition/addresses.ts';
import { OneOf, strict } from '../definition/schema.ts';

const address = Type.Optional(PciAddress);

export const RngInput = Type.Object(
  {
    source: Type.Optional(OneOf('/dev/urandom', '/dev/random', '/dev/hwrng', 'builtin')),
    /** at most so much in so long */
    rate: Type.Optional(
      Type.Object({ bytes: Type.Integer({ minimum: 1 }), periodMs: Type.Integer({ minimum: 1 }) }, strict),
    ),
    address,
  },
  strict,
);

/** The guest has the device; nobody asks it for memory, so that an image holds all of it. */
export const BalloonInput = Type.Object({ deflateOnOom: Type.Optional(Type.Boolean()), address }, strict);

export const WatchdogInput = Type.Object(
  {
    model: OneOf('itco', 'i6300esb', 'ib700'),
    action: Type.Optional(OneOf('reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi')),
    address,
  },
  strict,
);

export const PanicInput = Type.Object({ model: OneOf('isa', 'pci'), address }, strict);

export interface Helpers {
  readonly rng?: Static<typeof RngInput>;
  readonly balloon?: Static<typeof BalloonInput>;
  readonly watchdogs?: readonly Static<typeof WatchdogInput>[];
  readonly panic?: Static<typeof PanicInput>;
}

export function helperArgs({ rng, balloon, watchdogs = [], panic }: Helpers, place: Place): string[] {
  return [
    ...(rng === undefined ? [] : rngArgs(rng, place)),
    ...(balloon === undefined ? [] : balloonArgs(balloon, place)),
    ...watchdogs.flatMap((watchdog) => watchdogArgs(watchdog, place)),
    ...(panic === undefined ? [] : panicArgs(panic, place)),
  ];
}

function rngArgs({ source = '/dev/urandom', rate, ...rng }: Static<typeof RngInput>, place: Place): string[] {
  const backend =
    source === 'builtin' ? { 'qom-type': 'rng-builtin' } : { 'qom-type': 'rng-random', filename: source };
  return [
    ...['-object', JSON.stringify({ ...backend, id: 'randomness' })],
    ...device({
      driver: 'virtio-rng-pci',
      id: 'rng',
      rng: 'randomness',
      ...(rate === undefined ? {} : { 'max-bytes': rate.bytes, period: rate.periodMs }),
      ...place(rng.address, SLOT.rng),
    }),
  ];
}

function balloonArgs({ deflateOnOom, ...balloon }: Static<typeof BalloonInput>, place: Place): string[] {
  return device({
    driver: 'virtio-balloon-pci',
    id: 'balloon',
    ...(deflateOnOom === undefined ? {} : { 'deflate-on-oom': deflateOnOom }),
    ...place(balloon.address, SLOT.balloon),
  });
}

function watchdogArgs(watchdog: Static<typeof WatchdogInput>, place: Place): string[] {
  const action = ['-action', `watchdog=${watchdog.action ?? 'reset'}`];
  switch (watchdog.model) {
    case 'itco': // part of the q35 chipset; a strap says whether it may reboot
      return ['-global', 'ICH9-LPC.noreboot=off', ...action];
    case 'ib700':
      return [...device({ driver: 'ib700', id: 'watchdog' }), ...action];
    case 'i6300esb':
      return [
        ...device({ driver: 'i6300esb', id: 'watchdog', ...place(watchdog.address, SLOT.watchdog) }),
        ...action,
      ];
    default:
      return watchdog.model satisfies never;
  }
}

function panicArgs(panic: Static<typeof PanicInput>, place: Place): string[] {
  return panic.model === 'isa'
    ? device({ driver: 'pvpanic', id: 'panic' })
    : device({ driver: 'pvpanic-pci', id: 'panic', ...place(panic.address, SLOT.panic) });
}
