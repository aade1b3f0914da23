/** What is wrong with a definition, in words: the key, what it should be, the nearest known one. */
import { closest } from 'fastest-levenshtein';
import type Type from 'typebox';
import Value from 'typebox/value';
import { invalid } from './schema.ts';

type SchemaError = ReturnType<typeof Value.Errors>[number];

/** @returns the error for an input that a schema refuses */
export function refusal(schema: Type.TSchema, input: unknown): Error {
  const errors = Value.Errors(schema, input).filter(({ keyword }) => keyword !== 'boolean');
  // A key that is misspelt is also one that is missing: the misspelling is what the user wants to hear of.
  const error = errors.find(({ keyword }) => keyword === 'additionalProperties') ?? errors[0];
  return invalid(error === undefined ? 'it does not fit the schema' : explain(schema, error, input), {
    path: error?.instancePath,
  });
}

function explain(schema: object, error: SchemaError, input: unknown): string {
  const where = error.instancePath === '' ? '' : `${error.instancePath.slice(1).replaceAll('/', '.')}: `;
  if (error.keyword === 'additionalProperties') {
    const [unknown = ''] = error.params.additionalProperties;
    const known = knownKeys(schema, error.schemaPath);
    return `${where}unknown key "${unknown}"; did you mean "${closest(unknown, known)}"? (known: ${known.join(', ')})`;
  }
  if (error.keyword === 'required')
    return `${where}the key "${error.params.requiredProperties[0]}" is missing`;
  if (error.keyword === 'enum') return `${where}must be one of ${error.params.allowedValues.join(', ')}`;
  if (input === null || typeof input !== 'object')
    return 'a guest definition is a YAML or JSON mapping with at least `name` and `memory`';
  return `${where}${error.message}`;
}

/** The keys that the schema at a path such as `#/properties/disks/items` knows. */
function knownKeys(root: object, schemaPath: string): string[] {
  let schema = root;
  for (const part of [...schemaPath.split('/').slice(1), 'properties']) {
    const inner: unknown = Reflect.get(schema, part);
    if (typeof inner !== 'object' || inner === null) return [];
    schema = inner;
  }
  return Object.keys(schema);
}
