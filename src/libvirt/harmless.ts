/**
 * What of a domain Stasis needn't know, each with the reason. Paths begin anywhere: `alias` is an alias of whatever;
 * an attribute is written `@name`.
 */
const HARMLESS: Readonly<Record<string, string>> = {
  'domain/metadata': 'notes of management tools; QEMU never sees them',
  'domain/title': 'a text for people',
  'domain/description': 'a text for people',
  'domain/@id': "the number of libvirt's process while it ran",
  'domain/resource': "where libvirt's processes were in the host's control groups",
  'domain/os/nvram/@template': 'what the variables were made from; they are there now',
  'domain/os/nvram/@templateFormat': 'what the variables were made from; they are there now',
  'domain/cpu/@check': "when libvirt compared the host's processor; QEMU does that itself",
  'domain/cpu/model/@fallback': 'what libvirt does when the host lacks the model; QEMU says so',
  'domain/cpu/vendor': 'a wish about the host, not a part of the guest',
  'domain/features/pae': 'every 64-bit processor has it',
  'domain/memory/@dumpCore': "whether a core dump of QEMU has the guest's memory",
  'domain/vcpu/@placement': 'how libvirt chose the cores that vcpu/@cpuset would name',
  'domain/memoryBacking/nosharepages': 'whether the host may merge equal pages; the guest sees no difference',
  'domain/memoryBacking/source': 'what the host makes memory of; huge pages are read',
  'domain/memoryBacking/access': 'for devices outside of QEMU, of which none is supported',
  'domain/memoryBacking/allocation': 'when the host makes memory',
  'domain/devices/emulator': "the path of libvirt's QEMU; Stasis uses its own",
  'domain/devices/audio':
    'what plays on the host: sound cards are silent here, which is told beside the card',
  'domain/devices/memballoon/stats': 'how often libvirt asked; nobody asks here',
  'domain/devices/graphics/image': 'how pictures travel to a viewer',
  'domain/devices/graphics/jpeg': 'how pictures travel to a viewer',
  'domain/devices/graphics/zlib': 'how pictures travel to a viewer',
  'domain/devices/graphics/streaming': 'how pictures travel to a viewer',
  'domain/devices/graphics/playback': 'how sound travels to a viewer',
  'domain/devices/disk/@snapshot': "how libvirt's own snapshots deal with the disk",
  'domain/devices/disk/backingStore': "what stands below a disk; its file's own header says so too",
  'domain/devices/disk/source/@index': "a number in libvirt's block graph",
  'domain/devices/disk/target/@tray': 'whether the tray was open when it last ran',
  'domain/devices/interface/target/@dev': 'the name of a tap that libvirt makes anew each time',
  'domain/devices/interface/source/@portid': "a number in libvirt's networks",
  'domain/devices/interface/driver/@name': 'who moves the packets on the host: QEMU does here',
  'domain/devices/serial/source': 'where the other end was; `stasis console` is that here',
  'domain/devices/serial/target/@port': 'the number of the only one',
  'domain/devices/console/source': 'where the other end was; `stasis console` is that here',
  'domain/devices/console/target/@port': 'the number of the only one',
  'domain/devices/channel/source': 'where the other end was',
  'domain/devices/channel/target/@state': 'whether the guest had it open',
  seclabel: "labels of the host's security modules",
  alias: "libvirt's name for a device",
};

export function isHarmless(path: string): boolean {
  return Object.keys(HARMLESS).some((known) => path === known || path.endsWith(`/${known}`));
}
