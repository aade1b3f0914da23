/**
 * The units that Stasis has for systemd, as text. What each line is for stands in ARCHITECTURE.md, "Under systemd":
 *
 * - `stasis.socket` listens, so that the first who asks starts the daemon;
 * - `stasis.service` is the daemon; its end is nothing to the guests, which run on;
 * - `stasis-guests.service` does nothing but to be stopped before the daemon and before storage goes: when that is because the
 *   host shuts down, the guests are ended.
 */
import { StasisError } from '../errors.ts';
import { QEMU_USER } from '../qemu-user.ts';

export const SOCKET = 'stasis.socket';
export const DAEMON = 'stasis.service';
export const GUESTS = 'stasis-guests.service';
export const UNITS = [SOCKET, DAEMON, GUESTS] as const;

export interface UnitOptions {
  /** of the host, run by root; or a user's own, run by that user's systemd */
  readonly scope: 'system' | 'user';
  /** absolute path of `bin/stasis` */
  readonly program: string;
  /** absolute path of the socket */
  readonly socket: string;
  /** directories whose file systems are mounted before the daemon and go after the guests: the daemon's own, those of disks */
  readonly storage: readonly string[];
  readonly budgetSeconds: number;
  /** what the daemon and the command that ends the guests need to know beside: `STASIS_HOME`, `STASIS_QEMU` */
  readonly environment: Readonly<Record<string, string>>;
}

export interface UnitFile {
  readonly name: string;
  readonly text: string;
}

/** Until it asks for more itself, which it does as soon as its program is loaded: that alone takes long on a host that is still busy booting. */
const START_SECONDS = 300;
/** The event loop waits for the disk at each commit; it is stuck when it doesn't turn for so long. */
const WATCHDOG_SECONDS = 120;
/** For a daemon that has to be started for it, and for pulling the last plugs. */
const BEYOND_BUDGET_SECONDS = 60;
/** The user that guests' QEMU runs as, made when it isn't there (sysusers.d(5)); where that fails the daemon does without, and says so. */
const MAKE_QEMU_USER = [
  ...['systemd-sysusers', '--inline'],
  ...[`u ${QEMU_USER} - "QEMU of Stasis"`, `m ${QEMU_USER} kvm`],
];
/** What makes storage of other kinds, and takes it away: LVM, ZFS, Ceph, iSCSI, multipath. */
const STORAGE_UNITS = [
  'blk-availability.service',
  'zfs.target',
  'rbdmap.service',
  'open-iscsi.service',
  'iscsi.service',
  'multipathd.service',
];

/** @throws StasisError `invalid-request` for a path that is none for systemd */
export function unitFiles(options: UnitOptions): UnitFile[] {
  for (const path of [options.program, options.socket, ...options.storage]) requirePath(path);
  return [
    { name: SOCKET, text: socketUnit(options) },
    { name: DAEMON, text: daemonUnit(options) },
    { name: GUESTS, text: guestsUnit(options) },
  ];
}

function socketUnit({ scope, socket }: UnitOptions): string {
  return unit([
    ['Unit', ['Description=Stasis: the socket of its daemon']],
    [
      'Socket',
      [
        `ListenStream=${specifiersEscaped(socket)}`,
        'SocketMode=0600',
        'DirectoryMode=0700',
        'RemoveOnStop=yes',
      ],
    ],
    ['Install', [`WantedBy=${scope === 'system' ? 'sockets.target' : 'default.target'}`]],
  ]);
}

function daemonUnit(options: UnitOptions): string {
  const { scope, program, budgetSeconds } = options;
  const args = scope === 'system' ? ['--system', '--shutdown-budget', `${budgetSeconds}`] : [];
  return unit([
    [
      'Unit',
      [
        'Description=Stasis: save images of QEMU guests',
        `Requires=${SOCKET}`,
        `After=${SOCKET}`,
        ...storageLines(options),
        // A home that can't be served now can't be a moment later.
        'StartLimitIntervalSec=300',
        'StartLimitBurst=5',
      ],
    ],
    [
      'Service',
      [
        'Type=notify',
        ...(scope === 'system' ? [`ExecStartPre=-${commandLine(MAKE_QEMU_USER)}`] : []),
        `ExecStart=${commandLine([program, 'daemon', ...args])}`,
        ...environmentLines(options),
        `TimeoutStartSec=${START_SECONDS}`,
        `WatchdogSec=${WATCHDOG_SECONDS}`,
        'Restart=on-failure',
        'RestartSec=1',
        'KillMode=process',
        'OOMPolicy=continue',
        'TasksMax=infinity',
      ],
    ],
    [
      'Install',
      [`WantedBy=${scope === 'system' ? 'multi-user.target' : 'default.target'}`, `Also=${SOCKET}`],
    ],
  ]);
}

function guestsUnit(options: UnitOptions): string {
  const { scope, program, socket, budgetSeconds } = options;
  const saveAll = [
    ...[program, '--connect', `unix:${socket}`, 'host', 'save-all'],
    ...['--budget', `${budgetSeconds}s`, '--for-shutdown', scope],
  ];
  return unit([
    [
      'Unit',
      [
        'Description=Stasis: guests, ended as their policies say when the host shuts down',
        `Wants=${DAEMON}`,
        `After=${SOCKET} ${DAEMON}`,
        ...storageLines(options),
      ],
    ],
    [
      'Service',
      [
        'Type=oneshot',
        'RemainAfterExit=yes',
        `ExecStop=${commandLine(saveAll)}`,
        ...environmentLines(options),
        'NotifyAccess=all',
        `TimeoutStopSec=${budgetSeconds + BEYOND_BUDGET_SECONDS}`,
      ],
    ],
    ['Install', [`WantedBy=${scope === 'system' ? 'multi-user.target' : 'default.target'}`]],
  ]);
}

/** Stopped in the reverse order: guests are on disks, disks are on file systems, and those may come over the network. */
function storageLines({ scope, storage }: UnitOptions): string[] {
  if (scope === 'user') return []; // a user's systemd mounts nothing, and is itself started and stopped between
  return [
    `After=local-fs.target remote-fs.target network.target ${STORAGE_UNITS.join(' ')}`,
    `RequiresMountsFor=${storage.map(word).join(' ')}`,
  ];
}

function environmentLines({ environment }: UnitOptions): string[] {
  return Object.entries(environment).map(([name, value]) => `Environment=${word(`${name}=${value}`)}`);
}

function unit(sections: readonly (readonly [string, readonly string[]])[]): string {
  const parts = sections.map(([name, lines]) => `[${name}]\n${lines.map((line) => `${line}\n`).join('')}`);
  return `# Written by \`stasis host install\`, which replaces it; changes belong into a drop-in: systemctl edit.\n\n${parts.join('\n')}`;
}

/** A command line, on which `$` begins a variable (systemd.service(5)). */
function commandLine(words: readonly string[]): string {
  return words.map((text) => word(text.replaceAll('$', '$$$$'))).join(' ');
}

/** Quoted when need be, with nothing in it that systemd replaces (systemd.syntax(7), systemd.unit(5)). */
function word(text: string): string {
  const escaped = specifiersEscaped(text.replaceAll('\\', '\\\\').replaceAll('"', '\\"'));
  return /^[\w@%+=:,./-]+$/.test(text) ? escaped : `"${escaped}"`;
}

function specifiersEscaped(text: string): string {
  return text.replaceAll('%', '%%');
}

function requirePath(path: string): void {
  // oxlint-disable-next-line no-control-regex
  if (path.startsWith('/') && !/[\u0000-\u001f]/.test(path)) return;
  throw new StasisError(
    'invalid-request',
    `${JSON.stringify(path)} can't be in a unit of systemd: give an absolute path`,
  );
}
