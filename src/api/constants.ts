/**
 * Words of the wire that a program needs at run time. They stand apart from the schemas so that the command
 * line, which starts hundreds of times a day, needn't load a schema library to know them.
 */
/** The name under which the unnamed image of a guest, its *default image*, is listed and addressed. */
export const DEFAULT_IMAGE = 'default';

export const GUEST_STATES = ['stopped', 'running', 'paused', 'saving', 'restoring', 'crashed'] as const;

export const ON_BOOT = ['restore', 'start', 'skip-if-saved', 'none'] as const;
export const ON_SHUTDOWN = ['save', 'shutdown', 'stop', 'none'] as const;

/** What becomes of a guest that can't be restored when the host boots. */
export const FALLBACKS = ['none', 'start'] as const;

/** What becomes of a run of a schedule that was due while nobody was there to begin it. */
export const MISSED = ['catch-up', 'skip'] as const;

/** The ways to capture a guest that runs on. */
export const LIVE_METHODS = ['precopy', 'background'] as const;
export type LiveMethod = (typeof LIVE_METHODS)[number];

/** Names of guests and images: never paths. */
export const NAME_PATTERN = '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$';

/** How a disk's layers are made; see src/storage/driver.ts. */
export const DRIVER_NAMES = ['overlay', 'reflink', 'lvm', 'zfs', 'rbd'] as const;
export type DriverName = (typeof DRIVER_NAMES)[number];

/** Which session of the page a request is for: `stasis web` says it to the daemon. */
export const WEB_SESSION_HEADER = 'stasis-web-session';

/** With it the page asks for changes: another site's page can't set it. */
export const PAGE_HEADER = 'stasis-page';

/** What somebody may do, each including those before it: look, save and restore, everything. */
export const ROLES = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** What somebody is known by: their uid, a credential, or the page's session that they had for a token. */
export const PRINCIPAL_KINDS = ['user', 'token', 'certificate', 'session'] as const;
export type PrincipalKind = (typeof PRINCIPAL_KINDS)[number];
