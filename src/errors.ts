/**
 * The one error model, from QMP to exit status. Every failure a user can see is a `StasisError` whose code
 * stands in the table below; the table also fixes the HTTP status and the exit status, so that daemon, SDK and
 * command line can't disagree. A test holds table, OpenAPI document and README to each other.
 */
export const ERRORS = {
  // wrong usage
  'invalid-request': { http: 400, exit: 2 },
  'invalid-definition': { http: 400, exit: 2 },
  'invalid-name': { http: 400, exit: 2 },
  // no such thing
  'guest-not-found': { http: 404, exit: 3 },
  'image-not-found': { http: 404, exit: 3 },
  'operation-not-found': { http: 404, exit: 3 },
  'schedule-not-found': { http: 404, exit: 3 },
  'credential-not-found': { http: 404, exit: 3 },
  'not-found': { http: 404, exit: 1 },
  // not allowed
  unauthorized: { http: 401, exit: 1 },
  forbidden: { http: 403, exit: 1 },
  'too-many-requests': { http: 429, exit: 1 },
  // not possible in this state
  'guest-exists': { http: 409, exit: 4 },
  'image-exists': { http: 409, exit: 4 },
  'credential-exists': { http: 409, exit: 4 },
  'invalid-state': { http: 409, exit: 4 },
  busy: { http: 409, exit: 4 },
  'disk-in-use': { http: 409, exit: 4 },
  'disk-changed': { http: 409, exit: 4 },
  'has-images': { http: 409, exit: 4 },
  'image-protected': { http: 409, exit: 4 },
  'schedule-exists': { http: 409, exit: 4 },
  'idempotency-conflict': { http: 409, exit: 4 },
  // not possible on this host or with this guest
  'not-capturable': { http: 422, exit: 4 },
  unsupported: { http: 422, exit: 4 },
  'no-space': { http: 507, exit: 4 },
  'over-quota': { http: 507, exit: 4 },
  'no-memory': { http: 507, exit: 4 },
  'pause-too-long': { http: 422, exit: 4 },
  'quiesce-failed': { http: 422, exit: 4 },
  'disk-missing': { http: 422, exit: 4 },
  'qemu-missing': { http: 422, exit: 4 },
  'qemu-too-old': { http: 422, exit: 4 },
  'qemu-mismatch': { http: 422, exit: 4 },
  // failed
  cancelled: { http: 409, exit: 1 },
  timeout: { http: 504, exit: 1 },
  'qemu-failed': { http: 502, exit: 1 },
  'guest-crashed': { http: 502, exit: 1 },
  'capture-failed': { http: 502, exit: 1 },
  'restore-failed': { http: 502, exit: 1 },
  'image-damaged': { http: 422, exit: 1 },
  'storage-failed': { http: 500, exit: 1 },
  'catalog-damaged': { http: 500, exit: 1 },
  interrupted: { http: 500, exit: 1 },
  'daemon-unreachable': { http: 503, exit: 1 },
  internal: { http: 500, exit: 1 },
} as const satisfies Record<string, { http: number; exit: 1 | 2 | 3 | 4 }>;

/** SQLite's result codes, https://sqlite.org/rescode.html; the extended ones have the primary in their last byte. */
const PRIMARY_CODE = 0xff;
const SQLITE_FULL = 13;
const [SQLITE_READONLY, SQLITE_IOERR, SQLITE_CANTOPEN] = [8, 10, 14];
const SQLITE_DISK_ERRORS: readonly number[] = [SQLITE_READONLY, SQLITE_IOERR, SQLITE_CANTOPEN];
const [SQLITE_CORRUPT, SQLITE_NOTADB] = [11, 26];

/** What went wrong, for programs; the README's table says more. */
export type ErrorCode = keyof typeof ERRORS;

/** What a user may need to know beside the message: numbers, paths, the nearest known key, the cure. */
export type ErrorDetails = Readonly<Record<string, unknown>>;

/** What an error is about, beside its message. */
export interface ErrorContext {
  readonly guest?: string | undefined;
  readonly image?: string | undefined;
  readonly details?: ErrorDetails | undefined;
  readonly cause?: unknown;
}

/** An error as it travels: in a response, in an operation's record, in the CLI's `--json` output. */
export interface ErrorBody {
  code: ErrorCode;
  message: string;
  guest?: string;
  image?: string;
  details?: Record<string, unknown>;
}

/** Every failure that a caller can see, of the daemon's and of the client's. */
export class StasisError extends Error {
  override readonly name = 'StasisError';
  readonly code: ErrorCode;
  readonly guest: string | undefined;
  readonly image: string | undefined;
  readonly details: ErrorDetails | undefined;

  /** @param message what happened, to whom, and what to do about it: one or two sentences for a person */
  constructor(code: ErrorCode, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause });
    this.code = code;
    this.guest = context.guest;
    this.image = context.image;
    this.details = context.details;
  }

  get httpStatus(): number {
    return ERRORS[this.code].http;
  }

  get exitStatus(): number {
    return ERRORS[this.code].exit;
  }

  /** The same error told of a guest and an image, for code below that knows neither. */
  about(context: { guest?: string | undefined; image?: string | undefined }): StasisError {
    return new StasisError(this.code, this.message, {
      guest: this.guest ?? context.guest,
      image: this.image ?? context.image,
      details: this.details,
      cause: this.cause ?? this,
    });
  }

  /** As it travels. */
  toJSON(): ErrorBody {
    return {
      code: this.code,
      message: this.message,
      ...(this.guest === undefined ? {} : { guest: this.guest }),
      ...(this.image === undefined ? {} : { image: this.image }),
      ...(this.details === undefined ? {} : { details: { ...this.details } }),
    };
  }

  /** One that has travelled. A code that this version doesn't know becomes `internal`. */
  static fromJSON(body: ErrorBody): StasisError {
    return new StasisError(Object.hasOwn(ERRORS, body.code) ? body.code : 'internal', body.message, body);
  }

  /**
   * Any thrown value as a `StasisError`. File-system errors that a user can mend keep their meaning; everything
   * else is `internal`: a defect of ours, whose cause goes to the log and never to the user.
   */
  static from(error: unknown): StasisError {
    if (error instanceof StasisError) return error;
    const errno = errnoOf(error);
    if (errno === 'ERR_SQLITE_ERROR') return StasisError.#ofCatalog(error);
    if (errno === 'ABORT_ERR') return StasisError.#ofAbort(error);
    if (errno === 'ENOSPC' || errno === 'EDQUOT') {
      return new StasisError('no-space', `no space left on the device: ${messageOf(error)}`, {
        cause: error,
      });
    }
    if (errno !== undefined && ['EACCES', 'EPERM', 'EROFS', 'EIO', 'EMFILE', 'ENFILE'].includes(errno)) {
      return new StasisError('storage-failed', messageOf(error), { cause: error });
    }
    return new StasisError('internal', `internal error: ${messageOf(error)}`, { cause: error });
  }

  /** Of SQLite's errors those of the disk below it can be mended, and its file made again; any other is a defect. */
  static #ofCatalog(error: unknown): StasisError {
    const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & PRIMARY_CODE : 0;
    if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB)
      return catalogDamaged(messageOf(error), { cause: error });
    if (code === SQLITE_FULL) {
      const message = `no space left on the device of the catalog: ${messageOf(error)}`;
      return new StasisError('no-space', message, { cause: error });
    }
    const isDisk = SQLITE_DISK_ERRORS.includes(code);
    return isDisk
      ? new StasisError('storage-failed', `the catalog failed: ${messageOf(error)}`, { cause: error })
      : new StasisError('internal', `internal error: ${messageOf(error)}`, { cause: error });
  }

  /** What Node's own waits throw when their signal is aborted; its reason is their cause. */
  static #ofAbort(error: unknown): StasisError {
    const reason = error instanceof Error ? error.cause : undefined;
    return reason instanceof StasisError
      ? reason
      : new StasisError('cancelled', 'cancelled', { cause: error });
  }
}

/** @param finding what is wrong, to be read after "the catalog can't be used" */
export function catalogDamaged(finding: string, context: ErrorContext = {}): StasisError {
  return new StasisError(
    'catalog-damaged',
    `the catalog can't be used: ${finding}. \`stasis catalog rebuild\` makes it again from what stands beside the images; without a daemon on it, try \`--dry-run\` first`,
    context,
  );
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The errno name (`ENOENT`, …) of a Node system error, if it is one. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
