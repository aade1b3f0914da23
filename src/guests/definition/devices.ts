/** The devices of a guest beside disks and networks, as keys of its definition. */
import Type, { type Static } from 'typebox';
import { BridgeInput, type Bridge } from '../devices/bridges.ts';
import { ChannelInput, type Channel } from '../devices/channels.ts';
import { ControllerInput, type Controller } from '../devices/controllers.ts';
import { GraphicsInput, VideoInput, type Graphics, type Video } from '../devices/graphics.ts';
import { BalloonInput, PanicInput, RngInput, WatchdogInput, type Helpers } from '../devices/helpers.ts';
import { InputInput, RedirectionInput, type Input, type Redirection } from '../devices/inputs.ts';
import { SoundInput, type Sound } from '../devices/sound.ts';
import { EmptyDriveInput, type EmptyDrive } from './disks.ts';

const list = <T extends Type.TSchema>(schema: T, maxItems: number) =>
  Type.Optional(Type.Array(schema, { maxItems }));

export const DeviceInputs = {
  bridges: list(BridgeInput, 255),
  controllers: list(ControllerInput, 32),
  emptyDrives: list(EmptyDriveInput, 8),
  channels: list(ChannelInput, 31),
  graphics: Type.Optional(GraphicsInput),
  video: Type.Optional(VideoInput),
  inputs: list(InputInput, 16),
  redirections: list(RedirectionInput, 16),
  sound: Type.Optional(SoundInput),
  rng: Type.Optional(RngInput),
  balloon: Type.Optional(BalloonInput),
  watchdogs: list(WatchdogInput, 2),
  panic: Type.Optional(PanicInput),
} as const;

/** As they were written: where and what a device is that says little is fixed in src/guests/devices. */
export interface Devices extends Helpers {
  readonly graphics: Graphics;
  readonly bridges?: readonly Bridge[];
  readonly controllers?: readonly Controller[];
  readonly emptyDrives?: readonly EmptyDrive[];
  readonly channels?: readonly Channel[];
  readonly video?: Video;
  readonly inputs?: readonly Input[];
  readonly redirections?: readonly Redirection[];
  readonly sound?: Sound;
}

type DevicesInput = { [Key in keyof typeof DeviceInputs]?: Static<(typeof DeviceInputs)[Key]> };

export function pinDevices(read: DevicesInput): Devices {
  const said = Object.fromEntries(
    Object.keys(DeviceInputs)
      .map((key) => [key, Reflect.get(read, key)])
      .filter(([, value]) => value !== undefined),
  );
  return { graphics: 'none', ...said };
}
