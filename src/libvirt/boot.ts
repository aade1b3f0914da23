/** What a domain starts from: machine type, firmware, kernel, and the order of its devices. */
import type { DefinitionInput } from '../guests/definition.ts';
import type { Context } from './context.ts';
import type { Element } from './element.ts';

type Boot = Pick<DefinitionInput, 'machine' | 'boot' | 'accelerator' | 'firmware'>;

export function readBoot(domain: Element, context: Context): Boot {
  const accelerator = domain.choice('type', { kvm: 'auto', qemu: 'tcg' } as const);
  const os = domain.child('os');
  const type = os?.child('type');
  type?.choice('arch', { x86_64: true });
  if (type !== undefined && type.text() !== 'hvm') context.problem(type, 'is no full machine (hvm)');
  const machine = type?.attribute('machine');
  os?.child('bootmenu')?.choice('enable', { no: false });
  os?.child('smbios')?.choice('mode', { emulate: true });
  return {
    ...(accelerator === undefined ? {} : { accelerator }),
    ...(machine === undefined ? {} : { machine }),
    ...readFirmware(os, context),
    ...readKernel(os),
  };
}

function readKernel(os: Element | undefined): Pick<DefinitionInput, 'boot'> {
  const kernel = os?.child('kernel')?.text();
  if (kernel === undefined) return {};
  const initrd = os?.child('initrd')?.text();
  const cmdline = os?.child('cmdline')?.text();
  return {
    boot: {
      kernel,
      ...(initrd === undefined ? {} : { initrd }),
      ...(cmdline === undefined ? {} : { cmdline }),
    },
  };
}

/** UEFI is either asked for, or there is a loader in flash; which build of it is the host's affair. */
function readFirmware(os: Element | undefined, context: Context): Pick<DefinitionInput, 'firmware'> {
  const asked = os?.choice('firmware', { efi: 'uefi', bios: 'bios' } as const);
  const loader = os?.child('loader');
  const isFlash = loader?.choice('type', { pflash: true }) ?? false;
  if (asked !== 'uefi' && !isFlash) return {};
  loader?.flag('readonly');
  loader?.choice('format', { raw: true });
  const path = loader?.text() ?? '';
  const isSecure = [loader?.flag('secure') ?? false, ...readFirmwareFeatures(os)].includes(true);
  const nvram = os?.child('nvram');
  nvram?.attribute('template');
  nvram?.choice('templateFormat', { raw: true });
  nvram?.choice('format', { raw: true });
  const vars = readVariables(nvram, context);
  if (loader !== undefined && path !== '')
    context.note(loader, `${path} is not what it starts from: Stasis chooses the build of the firmware`);
  return {
    firmware: { type: 'uefi', secureBoot: isSecure, ...(vars === '' ? {} : { vars }) },
  };
}

/** @returns the file of the variables, or nothing when libvirt was to make it at the first start and never did */
function readVariables(nvram: Element | undefined, context: Context): string {
  const path = nvram?.text() ?? '';
  if (nvram === undefined || path === '' || context.options.hasFile?.(path) !== false) return path;
  context.note(nvram, `${path} is not there: it starts with new variables`);
  return '';
}

/** @returns for each feature that makes secure boot whether it is on */
function readFirmwareFeatures(os: Element | undefined): boolean[] {
  return (os?.child('firmware')?.children('feature') ?? []).map((feature) => {
    feature.take();
    const name = feature.choice('name', { 'secure-boot': 'secure', 'enrolled-keys': 'keys' } as const);
    const isOn = feature.flag('enabled') ?? false;
    return name === 'secure' && isOn;
  });
}

/** What may be booted from, in order: `<boot dev>`; none when the devices have an order of their own. */
export function bootKinds(domain: Element): ('hd' | 'cdrom' | 'network')[] {
  return (domain.child('os')?.children('boot') ?? []).flatMap((boot) => {
    const kind = boot.choice('dev', { hd: 'hd', cdrom: 'cdrom', network: 'network' } as const);
    boot.take();
    return kind === undefined ? [] : [kind];
  });
}

/** @returns a device's own place in the order */
export function bootOrder(device: Element): { bootOrder?: number } {
  const order = device.child('boot')?.number('order');
  return order === undefined ? {} : { bootOrder: order };
}
