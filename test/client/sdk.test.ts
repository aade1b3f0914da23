/** The client as others get it: its examples run as they stand in the document, and the browser's entry needs nothing of Node's. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { build } from 'vite';
import { Lab } from '../support/lab.ts';

const ROOT = join(import.meta.dirname, '../..');
const run = promisify(execFile);

/** Programs that the compiler finds the packages of this checkout for. */
async function programs(texts: readonly string[]) {
  const directory = await mkdtemp(join(ROOT, '.cache/sdk-'));
  const files = texts.map((_, index) => join(directory, `example-${index}.ts`));
  for (const [index, text] of texts.entries())
    await writeFile(files[index] ?? '', text.replaceAll("from 'stasis'", `from '../../src/client/index.ts'`));
  const config = { extends: join(ROOT, 'tsconfig.json'), include: ['*.ts'], exclude: [] };
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify(config));
  return { directory, files, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

test('the examples of the document compile and run', async () => {
  const document = await readFile(join(ROOT, 'docs/sdk.md'), 'utf8');
  const examples = [...document.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, text = '']) => text);
  assert.ok(examples.length >= 6);
  await using written = await programs(examples);
  await run(join(ROOT, 'node_modules/.bin/tsc'), ['--noEmit', '-p', written.directory]);
  await using lab = await Lab.create();
  await lab.define('web1', { disks: 1 });
  const told = [];
  for (const file of written.files) {
    const environment = { ...process.env, STASIS_HOME: lab.home, STASIS_CONNECT: '' };
    const { stdout } = await run(process.execPath, ['--disable-warning=ExperimentalWarning', file], {
      env: environment,
    });
    told.push(stdout);
  }
  assert.match(told[0] ?? '', /^web1 is \w+ and has 0 images/);
  assert.match(told[1] ?? '', /the guest stood still for [\d.]+ ms/);
  assert.equal(told[2], 'done\n');
  assert.match(told[3] ?? '', /before-update/);
  const policies = (await lab.client.listOperations()).filter(({ kind }) => kind === 'policy');
  assert.equal(policies.length, 1);
});

test("the browser's entry is bundled without any module of Node's", async () => {
  const built = await build({
    configFile: false,
    logLevel: 'silent',
    build: {
      write: false,
      minify: false,
      lib: { entry: join(ROOT, 'src/client/browser.ts'), formats: ['es'] },
      rolldownOptions: { external: [/^node:/] },
    },
  });
  const [output] = [built].flat();
  assert.ok(output !== undefined && 'output' in output);
  const chunks = output.output.filter((each) => each.type === 'chunk');
  assert.deepEqual(
    chunks.flatMap(({ imports, dynamicImports }) => [...imports, ...dynamicImports]),
    [],
  );
  const [entry] = chunks;
  assert.deepEqual(entry?.exports.toSorted(), ['DEFAULT_IMAGE', 'ERRORS', 'PageClient', 'StasisError']);
  // What is asked for by other ways than an import would be in the code itself.
  assert.ok(!/getBuiltinModule|\bprocess\.|\bBuffer\./.test(entry.code), 'there is something of Node in it');
});
