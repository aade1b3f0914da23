/** Devices of a domain beside disks, networks and controllers. */
import type { DefinitionInput } from '../guests/definition.ts';
import { pciAddress, portAddress, usbAddress } from './address.ts';
import type { Context } from './context.ts';
import type { Element } from './element.ts';

type Part<Key extends keyof DefinitionInput> = { [K in Key]?: DefinitionInput[K] };
type List<Key extends keyof DefinitionInput> = Extract<DefinitionInput[Key], readonly unknown[]>;

const AGENT = 'org.qemu.guest_agent.0';

/** The address as a key, when there is one. */
function at(device: Element): { address?: string } {
  const address = pciAddress(device);
  return address === undefined ? {} : { address };
}

/** The first serial port, which libvirt also lists as a console, or only so. */
export function readSerial(devices: Element, context: Context): { serial: boolean } {
  const [serial] = devices.children('serial');
  if (serial?.choice('type', { pty: true, unix: true }) === true) {
    serial.take();
    const target = serial.child('target');
    target?.choice('type', { 'isa-serial': true });
    target?.child('model')?.choice('name', { 'isa-serial': true });
  }
  const isConsole = takeSerialConsole(devices);
  if (serial !== undefined && serial.peek('type') !== 'pty')
    context.note(serial, 'has its other end at `stasis console`');
  return { serial: serial !== undefined || isConsole };
}

/** @returns whether there is a console that is the first serial port under another name */
function takeSerialConsole(devices: Element): boolean {
  const [console] = devices.children('console');
  const target = console?.children('target').at(0);
  if (console === undefined || (target !== undefined && target.peek('type') !== 'serial')) return false;
  console.take().choice('type', { pty: true, unix: true });
  target?.take().attribute('type');
  return true;
}

export function readChannels(devices: Element, context: Context): Part<'channels' | 'agent'> {
  const channels: List<'channels'> = [];
  for (const channel of devices.children('channel')) {
    const type = channel.choice('type', { unix: 'unix', spicevmc: 'spice', pty: 'unix' } as const);
    const target = channel.children('target').at(0);
    if (type === undefined || target?.peek('type') !== 'virtio') continue;
    channel.take();
    target.take().attribute('type');
    const name = target.attribute('name') ?? (type === 'spice' ? 'com.redhat.spice.0' : 'unnamed');
    channels.push({ name, address: portAddress(channel) ?? `0:${channels.length + 1}` });
    if (type === 'unix' && name !== AGENT)
      context.note(channel, `${name} is there for the guest; nobody on the host is at its other end`);
  }
  return { channels, agent: channels.some(({ name }) => name === AGENT) };
}

export function readInputs(devices: Element, context: Context): Part<'inputs' | 'redirections'> {
  const inputs: List<'inputs'> = [];
  for (const input of devices.children('input')) {
    const type = input.choice('type', { tablet: 'tablet', keyboard: 'keyboard', mouse: 'mouse' } as const);
    const bus = input.choice('bus', { usb: 'usb', virtio: 'virtio', ps2: 'ps2' } as const) ?? 'ps2';
    if (type === undefined) continue;
    input.take();
    if (bus === 'usb') {
      const address = usbAddress(input);
      inputs.push({ type, bus, ...(address === undefined ? {} : { address }) });
    }
    if (bus === 'virtio') {
      const { address } = at(input);
      if (address === undefined) context.problem(input, 'needs a PCI address');
      else inputs.push({ type, bus, address });
    }
  }
  return { inputs, redirections: readRedirections(devices, context) };
}

function readRedirections(devices: Element, context: Context): List<'redirections'> {
  return devices.children('redirdev').flatMap((redirection) => {
    if (context.isMissing('chardev-spicevmc')) return [];
    const isSpice = redirection.choice('type', { spicevmc: true }) ?? false;
    const isUsb = redirection.choice('bus', { usb: true }) ?? false;
    if (!isSpice || !isUsb) return [];
    redirection.take();
    const address = usbAddress(redirection);
    return [address === undefined ? {} : { address }];
  });
}

export function readGraphics(devices: Element, context: Context): Part<'graphics' | 'video'> {
  const graphics = devices
    .children('graphics')
    .flatMap((element) => readServer(element, context))
    .at(0);
  return { graphics: graphics ?? 'none', video: readVideo(devices, context) };
}

type Graphics = NonNullable<DefinitionInput['graphics']>;

/** Only the first server is taken, and no port is opened but one that the domain names. */
function readServer(element: Element, context: Context): Graphics[] {
  const type = element.choice('type', { vnc: 'vnc', spice: 'spice' } as const);
  if (type === undefined) return [];
  element.take();
  if (type === 'spice' && context.isMissing('chardev-spicevmc')) {
    context.problem(element, 'this QEMU has no SPICE (Debian: qemu-system-modules-spice)', 'type');
    element.takeAll();
    return ['vnc'];
  }
  const isAutomatic = element.flag('autoport') ?? false;
  const port = element.number('port') ?? -1;
  element.choice('tlsPort', { '-1': true });
  const listen = readListen(element);
  // Without its password the port would be open to everybody.
  const isProtected = element.peek('passwd') !== undefined;
  if (isAutomatic || port <= 0 || isProtected) {
    context.note(
      element,
      `is a socket in the guest's run directory: no port is opened that the domain doesn't name`,
    );
    return [type];
  }
  return [{ type, port, ...(listen === undefined ? {} : { listen }) }];
}

function readListen(element: Element): string | undefined {
  const inner = element.child('listen');
  const kind = inner?.choice('type', { address: true, none: false, socket: false });
  if (kind === false) inner?.attribute('socket'); // where it was
  const outer = element.attribute('listen');
  // libvirt writes it twice.
  return outer === undefined
    ? inner?.attribute('address')
    : (inner?.choice('address', { [outer]: outer }) ?? outer);
}

const VIDEO = {
  vga: 'vga',
  virtio: 'virtio',
  qxl: 'qxl',
  bochs: 'bochs',
  cirrus: 'cirrus',
  vmvga: 'vmvga',
  ramfb: 'ramfb',
  none: 'none',
} as const;
type Video = NonNullable<DefinitionInput['video']>;

function readVideo(devices: Element, context: Context): Video {
  const [video] = devices.children('video');
  const card = video?.child('model');
  const model = card?.choice('type', VIDEO);
  if (video === undefined || card === undefined || model === undefined) return { model: 'none' };
  video.take();
  card.choice('primary', { yes: true });
  card.child('acceleration')?.choice('accel3d', { no: false });
  const mib = (name: string): number | undefined => {
    const kib = card.number(name);
    return kib === undefined ? undefined : Math.max(1, Math.round(kib / 1024));
  };
  const heads = card.number('heads');
  const vram = mib('vram');
  if (model === 'qxl') {
    if (context.isMissing('qxl-vga')) {
      context.problem(card, 'this QEMU has no qxl (Debian: qemu-system-modules-spice)', 'type');
      card.takeAll();
      return { model: 'vga', ...at(video) };
    }
    const ram = mib('ram');
    const memory = mib('vgamem');
    return {
      model,
      ...(memory === undefined ? {} : { memoryMiB: memory }),
      ...(ram === undefined ? {} : { ramMiB: ram }),
      ...(vram === undefined ? {} : { vramMiB: vram }),
      ...(heads === undefined ? {} : { heads }),
      ...at(video),
    };
  }
  const hasMemory = model === 'vga' || model === 'bochs' || model === 'vmvga';
  return {
    model,
    ...(hasMemory && vram !== undefined ? { memoryMiB: vram } : {}),
    ...(model === 'virtio' && heads !== undefined ? { heads } : {}),
    ...at(video),
  };
}

export function readSound(devices: Element, context: Context): Part<'sound'> {
  const [sound] = devices.children('sound');
  const model = sound?.choice('model', {
    ich6: 'ich6',
    ich9: 'ich9',
    ac97: 'ac97',
    es1370: 'es1370',
  } as const);
  if (sound === undefined || model === undefined) return {};
  sound.take();
  sound.child('codec')?.choice('type', { duplex: true });
  context.note(sound, 'is silent: the guest has the card, nothing on the host plays');
  return { sound: { model, ...at(sound) } };
}

export function readHelpers(
  devices: Element,
  machine: string,
  context: Context,
): Part<'rng' | 'balloon' | 'watchdogs' | 'panic' | 'tpm'> {
  return {
    ...readRng(devices, context),
    ...readBalloon(devices),
    watchdogs: readWatchdogs(devices),
    ...readPanic(devices),
    ...readTpm(devices, machine, context),
  };
}

const RANDOMNESS = ['/dev/urandom', '/dev/random', '/dev/hwrng'] as const;

function readRng(devices: Element, context: Context): Part<'rng'> {
  const [rng] = devices.children('rng');
  const backend = rng?.children('backend').at(0);
  const model = backend?.choice('model', { random: 'random', builtin: 'builtin' } as const);
  if (rng?.choice('model', { virtio: true }) !== true || model === undefined) return {};
  rng.take();
  const path = backend?.take().text() ?? '';
  const source =
    model === 'builtin' ? 'builtin' : RANDOMNESS.find((known) => known === (path || '/dev/random'));
  if (source === undefined) context.problem(rng, `${path} is not supported: only ${RANDOMNESS.join(', ')}`);
  const rate = rng.child('rate');
  const bytes = rate?.number('bytes');
  const periodMs = rate?.number('period') ?? 1000;
  return {
    rng: {
      ...(source === undefined ? {} : { source }),
      ...(bytes === undefined ? {} : { rate: { bytes, periodMs } }),
      ...at(rng),
    },
  };
}

function readBalloon(devices: Element): Part<'balloon'> {
  const [balloon] = devices.children('memballoon');
  const model = balloon?.choice('model', { virtio: 'virtio', none: 'none' } as const);
  if (balloon === undefined || model === undefined) return {};
  balloon.take();
  if (model === 'none') return {};
  balloon.choice('freePageReporting', { off: false });
  const deflateOnOom = balloon.flag('autodeflate');
  return { balloon: { ...(deflateOnOom === undefined ? {} : { deflateOnOom }), ...at(balloon) } };
}

function readWatchdogs(devices: Element): List<'watchdogs'> {
  return devices.children('watchdog').flatMap((watchdog) => {
    const model = watchdog.choice('model', { itco: 'itco', i6300esb: 'i6300esb', ib700: 'ib700' } as const);
    const action = watchdog.choice('action', {
      reset: 'reset',
      shutdown: 'shutdown',
      poweroff: 'poweroff',
      pause: 'pause',
      none: 'none',
      'inject-nmi': 'inject-nmi',
    } as const);
    if (model === undefined) return [];
    watchdog.take();
    return [{ model, ...(action === undefined ? {} : { action }), ...at(watchdog) }];
  });
}

/** The port that every PC has it at. */
const PANIC_PORT = '0x505';

function readPanic(devices: Element): Part<'panic'> {
  const panic = devices.children('panic').find((element) => element.peek('model') !== 'hyperv');
  const model = panic?.choice('model', { isa: 'isa', pvpanic: 'pci' } as const);
  if (panic === undefined || model === undefined) return {};
  panic.take();
  if (model === 'isa') {
    const address = panic.child('address');
    address?.choice('type', { isa: true });
    address?.choice('iobase', { [PANIC_PORT]: true });
    return { panic: { model } };
  }
  return { panic: { model, ...at(panic) } };
}

/** The older machine has the older interface, as in src/guests/command-line/firmware.ts. */
function readTpm(devices: Element, machine: string, context: Context): Part<'tpm'> {
  const interfaceName = /^pc(-i440fx|$)/.test(machine) ? 'tpm-tis' : 'tpm-crb';
  const [tpm] = devices.children('tpm');
  const backend = tpm?.children('backend').at(0);
  if (
    tpm?.choice('model', { [interfaceName]: true }) !== true ||
    backend?.choice('type', { emulator: true }) !== true
  )
    return {};
  tpm.take();
  backend.take().choice('version', { '2.0': true });
  context.note(
    tpm,
    "begins empty: what libvirt's TPM holds (keys of BitLocker, say) is not taken over; have a recovery key at hand",
  );
  return { tpm: true };
}
