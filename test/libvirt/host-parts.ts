/**
 * The command lines of libvirt and of Stasis, made to start on any host: what stands for something of the host (taps,
 * displays, sockets, firmware, other programs) is replaced or left out, in both alike. What the guest sees stays.
 */

/** Words of a command line as `virsh domxml-to-native` prints it: quoted by `'` where need be. */
export function wordsOf(text: string): string[] {
  return [...text.trim().matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain = '']) => quoted ?? plain);
}

/** Options whose devices talk to the host only. */
const LEFT_OUT = ['-vnc', '-spice', '-sandbox', '-tpmdev', '-mon', '-qmp', '-name'];

/** @param images where the disks of libvirt's paths are */
export function withoutHost(args: readonly string[], images: string): string[] {
  const result: string[] = [];
  for (let index = 0; index < args.length; index += 1) {
    const option = args[index] ?? '';
    if (!option.startsWith('-') || TAKES_NOTHING.has(option)) {
      result.push(option);
      continue;
    }
    index += 1;
    const value = withoutHostPart(option, args[index] ?? '', images);
    if (!LEFT_OUT.includes(option) && value !== undefined) result.push(option, value);
  }
  return result;
}

const TAKES_NOTHING = new Set(['-S', '-nodefaults', '-no-user-config', '-no-shutdown']);

function withoutHostPart(option: string, value: string, images: string): string | undefined {
  if (option === '-machine') return value.replaceAll(/,pflash\d=[^,]*/g, '');
  if (option === '-global' && value.startsWith('driver=cfi.pflash01')) return undefined;
  if (option === '-object' && value.includes('"secret"')) return undefined;
  if (option === '-blockdev' && value.includes('pflash')) return undefined;
  if (option === '-blockdev') return value.replaceAll('/var/lib/libvirt/images', images);
  if (option === '-device' && value.includes('"tpm-')) return undefined;
  if (option === '-audiodev') return value.replace('"driver":"spice"', '"driver":"none"');
  if (option === '-netdev')
    return value.replace(/"type":"\w+".*(?="id")/, '"type":"user",').replace(/,"br":"\w+"/, '');
  if (option === '-chardev') {
    const id = /id=(\w[\w-]*)/.exec(value)?.[1] ?? '';
    return id === 'charmonitor' || id === 'chrtpm' ? undefined : `null,id=${id}`;
  }
  return value;
}
