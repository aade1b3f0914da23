/**
 * What checks a request is compiled when the first such request comes: most daemons never see one of most routes, and compiling all
 * of them is a good part of a daemon's start.
 */
import { AjvCompiler } from '@fastify/ajv-compiler';
import type { FastifySchemaCompiler } from 'fastify';
import type { TSchema } from 'typebox';

type Compiler = ReturnType<ReturnType<typeof AjvCompiler>>;

/** Fastify's own compiler, asked late. @param schemas that others refer to */
export function lateValidators(schemas: readonly TSchema[]): FastifySchemaCompiler<object> {
  const customOptions = { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: false };
  let compile: Compiler | undefined;
  return (route) => {
    let validate: ReturnType<Compiler> | undefined;
    return (data: unknown) => {
      compile ??= AjvCompiler()(Object.fromEntries(schemas.entries()), { customOptions });
      validate ??= compile(route);
      return validate(data) === true || { error: validate.errors ?? [] };
    };
  };
}
