import { AsyncLocalStorage } from 'node:async_hooks';

/** What a part needs to log: pino's shape, without pino. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/**
 * What a piece of work is about. Whatever is logged while it goes on, however deep below, is logged with that: nobody
 * has to hand it down. What the work leaves behind, say a connection, logs without it once the work is over.
 */
class LogScope {
  readonly fields: object;
  isOver = false;

  constructor(fields: object) {
    this.fields = fields;
  }
}

const scopes = new AsyncLocalStorage<LogScope>();

/** The fields of the work under way: operation, guest and image of an operation, the id of a request. */
export function scopeFields(): object {
  const scope = scopes.getStore();
  return scope === undefined || scope.isOver ? {} : scope.fields;
}

/** Runs work with these fields, and those of what it is part of. */
export async function inLogScope<T>(fields: object, work: () => Promise<T>): Promise<T> {
  const scope = new LogScope({ ...scopeFields(), ...fields });
  try {
    return await scopes.run(scope, work);
  } finally {
    scope.isOver = true;
  }
}
