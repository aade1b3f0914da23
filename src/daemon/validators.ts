/** Validators of what clients send, each compiled from its route's schema when first needed. */
import AjvCompiler from '@fastify/ajv-compiler';
import type { FastifySchema, FastifySchemaCompiler } from 'fastify';

const buildAjv = AjvCompiler();
/** What was sent is taken as it is: nothing removed, converted or added. */
const OPTIONS = {
  removeAdditional: false,
  coerceTypes: false,
  useDefaults: false,
  allErrors: false,
} as const;

/**
 * To compile all of them at once took a fifth of the daemon's start, and a command that starts the daemon waits for that.
 * @param shared the schemas that routes name by their `$id`
 */
export function lazyValidators(shared: readonly object[]): FastifySchemaCompiler<FastifySchema> {
  const compile = buildAjv(Object.fromEntries(shared.entries()), { customOptions: OPTIONS });
  return (route) => {
    let compiled: ReturnType<typeof compile> | undefined;
    const validate: ReturnType<FastifySchemaCompiler<FastifySchema>> = (data: unknown) => {
      compiled ??= compile(route);
      const isValid = compiled(data) === true;
      validate.errors = compiled.errors ?? null;
      return isValid;
    };
    return validate;
  };
}
