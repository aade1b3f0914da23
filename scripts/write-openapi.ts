/**
 * Writes openapi.json from the routes themselves. `--check` only compares, and fails when the file is not what the
 * routes say.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pino from 'pino';
import { buildServer } from '../src/daemon/server.ts';
import type { DaemonContext } from '../src/daemon/views.ts';

const path = join(import.meta.dirname, '../openapi.json');

/** Routes are only asked what they are, never called: they get a context in which nothing is, and nothing ends. */
const engine: Partial<DaemonContext['engine']> = { onEnded: () => undefined };
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const nothing = { host: {}, engine, startedAt: '' } as DaemonContext;

const { server } = await buildServer(nothing, pino({ level: 'silent' }));
const document = `${JSON.stringify(server.swagger(), null, 2)}\n`;
await server.close();

if (!process.argv.includes('--check')) writeFileSync(path, document);
else if (readFileSync(path, 'utf8') !== document) {
  process.stderr.write('openapi.json is not what the routes say: run `npm run openapi` and commit it\n');
  process.exitCode = 1;
}
