/**
 * Requests made from the OpenAPI document, as it says and otherwise, for every route of a real daemon: each answer is what the
 * document says of its status, each refusal has a code, none is a defect of ours, and the daemon lives.
 * `STASIS_SEED=42 STASIS_REQUESTS=5000 node --test test/daemon/api.test.ts` makes more of them.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import fc from 'fast-check';
import Schema from 'typebox/schema';
import { ERRORS, type ErrorBody } from '../../src/errors.ts';
import { fromStored } from '../../src/stored.ts';
import { Lab, testBoot } from '../support/lab.ts';

const SEED = Number(process.env['STASIS_SEED'] ?? 20_261);
const REQUESTS = Number(process.env['STASIS_REQUESTS'] ?? 120);
/** Something of the host failed, and it is told as that. */
const TOLD_FAILURES = Object.entries(ERRORS).filter(([code, { http }]) => http >= 500 && code !== 'internal');

interface JsonSchema {
  readonly $ref?: string;
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly maxItems?: number;
}

interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required?: boolean;
  readonly schema: JsonSchema;
}

interface Content {
  readonly content?: Readonly<Record<string, { readonly schema: JsonSchema }>>;
}

interface Route {
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: Content;
  readonly responses: Readonly<Record<string, Content>>;
}

interface ApiDocument {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Route>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, JsonSchema>> };
}

const document = fromStored<ApiDocument>(
  readFileSync(join(import.meta.dirname, '../../openapi.json'), 'utf8'),
);
const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, route]) => ({ path, method: method.toUpperCase(), route })),
);

interface Call {
  readonly method: string;
  readonly path: string;
  /** its path in the document */
  readonly template: string;
  readonly body: unknown;
  readonly key: string | undefined;
  readonly route: Route;
}

const anything = fc.jsonValue({ maxDepth: 2 });
const name = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('web1', 'web2', 'default', 'point') },
  { weight: 1, arbitrary: fc.string({ minLength: 1 }) },
  { weight: 1, arbitrary: fc.string({ minLength: 1, unit: 'binary' }).filter((each) => each.isWellFormed()) },
);
const definition = fc.oneof(
  anything,
  fc.record(
    {
      name,
      memory: fc.oneof(fc.constantFrom('16MiB', '0', '9999TiB'), anything),
      accelerator: fc.constant('tcg'),
      boot: fc.oneof(fc.constant(testBoot()), anything),
      disks: fc.oneof(
        fc.array(fc.record({ name, path: fc.constantFrom('/nonexistent', '/') }), { maxLength: 3 }),
        anything,
      ),
      network: anything,
      labels: anything,
    },
    { requiredKeys: ['name', 'memory'] },
  ),
);
/** What the document can't say: the rest of the host must be left alone, and the name of something that is there is worth more. */
const KNOWN: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  listen: fc.constantFrom('127.0.0.1:0', '[::1]:0', '127.0.0.1:99999', '::'),
  definition,
  directory: fc.constantFrom('/nonexistent', 'relative', ''),
  name,
  guest: name,
  image: name,
  asNewGuest: name,
  timeoutSeconds: fc.constantFrom(0.01, 0, -1, '1'),
  budgetSeconds: fc.constantFrom(0.01, 5, 0, -1),
};

/** Values that a schema allows; what it doesn't say of them is anything. */
function valuesOf(schema: JsonSchema): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined)
    return valuesOf(document.components.schemas[schema.$ref.split('/').at(-1) ?? ''] ?? {});
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map(valuesOf));
  const { minimum: min = -10, maximum: max = 100_000 } = schema;
  switch (schema.type) {
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'integer':
      return fc.integer({ min, max });
    case 'number':
      return fc.oneof(fc.integer({ min, max }), fc.double({ min, max, noNaN: true }));
    case 'string':
      return schema.pattern === undefined ? fc.string() : fc.stringMatching(new RegExp(schema.pattern));
    case 'array':
      return fc.array(valuesOf(schema.items ?? {}), { maxLength: 4 });
    case 'object': {
      const entries = Object.entries(schema.properties ?? {});
      return fc.record(
        Object.fromEntries(entries.map(([key, value]) => [key, KNOWN[key] ?? valuesOf(value)])),
        {
          requiredKeys: [...(schema.required ?? [])],
        },
      );
    }
    case undefined:
    default:
      return anything;
  }
}

/** As the document says, or with something of it changed. */
function bent(schema: JsonSchema): fc.Arbitrary<unknown> {
  const changed = fc
    .tuple(valuesOf(schema), fc.string(), anything, fc.nat())
    .map(([value, key, other, at]) => {
      if (typeof value !== 'object' || value === null) return other;
      const keys = [...Object.keys(value), key];
      const chosen = keys[at % keys.length] ?? key;
      // Where it listens is the one thing that other programs of this host would see.
      return chosen === 'listen' ? value : { ...value, [chosen]: other };
    });
  return fc.oneof({ weight: 4, arbitrary: valuesOf(schema) }, { weight: 2, arbitrary: changed }, anything);
}

const calls: fc.Arbitrary<Call> = fc.constantFrom(...routes).chain(({ path: template, method, route }) => {
  const parameters = route.parameters ?? [];
  const inPath = parameters.filter((each) => each.in === 'path');
  const inQuery = parameters.filter((each) => each.in === 'query');
  const body = route.requestBody?.content?.['application/json']?.schema;
  return fc
    .record({
      path: fc.tuple(...inPath.map((each) => (KNOWN[each.name] ?? valuesOf(each.schema)).map(String))),
      query: fc.record(
        Object.fromEntries(
          inQuery.map((each) => [each.name, fc.oneof(valuesOf(each.schema).map(String), fc.string())]),
        ),
        { requiredKeys: [] },
      ),
      body: body === undefined ? fc.constant(undefined) : fc.option(bent(body), { nil: undefined, freq: 8 }),
      key: fc.option(fc.constantFrom('a', 'b', 'c', 'x'.repeat(129)), { nil: undefined, freq: 2 }),
    })
    .map(({ path: values, query, ...rest }) => {
      const names = new Map(inPath.map((each, index) => [each.name, values[index] ?? '']));
      const filled = template.replaceAll(/\{(\w+)\}/g, (_, each: string) =>
        encodeURIComponent(names.get(each) ?? ''),
      );
      const asked = new URLSearchParams(
        Object.entries(query).map(([key, value]): [string, string] => [key, String(value)]),
      );
      return {
        ...rest,
        method,
        route,
        template,
        path: asked.size === 0 ? filled : `${filled}?${asked.toString()}`,
      };
    });
});

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

async function send(socketPath: string, { method, path, body, key }: Call): Promise<Answer> {
  const request = httpRequest({
    ...{ socketPath, method, path, agent: false },
    headers: {
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(key === undefined ? {} : { 'idempotency-key': key }),
    },
  });
  request.end(body === undefined ? undefined : JSON.stringify(body));
  const reply = await new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve).once('error', reject);
  });
  const { statusCode: status = 0, headers } = reply;
  return { status, type: headers['content-type'] ?? '', text: await text(reply) };
}

const validators = new Map<string, ReturnType<typeof Schema.Compile>>();

function check({ method, path, template, route }: Call, { status, type, text: told }: Answer): void {
  const about = `${method} ${path}: ${status} ${told.slice(0, 1000)}`;
  const [mediaType = ''] = type.split(';');
  if (status >= 400 && !(template === '/readyz' && status === 503)) {
    const { code } = fromStored<{ error: ErrorBody }>(told).error;
    assert.ok(Object.hasOwn(ERRORS, code), about);
    assert.equal(ERRORS[code].http, status, about);
    assert.notEqual(code, 'internal', about);
    if (status >= 500)
      assert.ok(
        TOLD_FAILURES.some(([each]) => each === code),
        about,
      );
  }
  const response = route.responses[String(status)] ?? route.responses['default'];
  assert.ok(response !== undefined, `the document has no such answer: ${about}`);
  const schema = response.content?.[mediaType]?.schema;
  if (schema === undefined || mediaType !== 'application/json') return;
  const where = `${method} ${template} ${status}`;
  // The components stand where the document's references look for them.
  const validator = validators.get(where) ?? Schema.Compile({ ...schema, components: document.components });
  validators.set(where, validator);
  const value: unknown = JSON.parse(told);
  if (!validator.Check(value))
    assert.fail(`not as the document says: ${about}\n${JSON.stringify(validator.Errors(value))}`);
}

test(`${REQUESTS} requests made from the OpenAPI document (seed ${SEED})`, async () => {
  await using lab = await Lab.create();
  for (const guest of ['web1', 'web2']) await lab.define(guest, { disks: 1 });
  await fc.assert(
    fc.asyncProperty(calls, async (call) => {
      check(call, await send(lab.paths.socket, call));
    }),
    { seed: SEED, numRuns: REQUESTS, endOnFailure: true },
  );
  assert.equal((await lab.client.readiness()).ready, true);
  assert.doesNotMatch(await lab.log(), /internal error/);
});
