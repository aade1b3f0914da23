import assert from 'node:assert/strict';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isXml, parseDefinition, readDefinitionFile } from '../../src/cli/definition-file.ts';

test('a definition may be YAML or JSON', () => {
  const expected = { name: 'web1', memory: '2GiB', disks: [{ path: 'x' }] };
  assert.deepEqual(parseDefinition('name: web1\nmemory: 2GiB\ndisks: [{path: x}]\n', 'f'), expected);
  assert.deepEqual(parseDefinition(JSON.stringify(expected), 'f'), expected);
});

test('a mistake is told with its line and column', () => {
  assert.throws(() => parseDefinition('name: web1\ndisks: [a, b\ncpus: 2\n', 'web1.yaml'), {
    code: 'invalid-definition',
    message: /^web1\.yaml:3:\d+: /,
  });
  assert.throws(() => parseDefinition('name: a\nname: b\n', 'f'), {
    code: 'invalid-definition',
    message: /unique/,
  });
});

test('a definition is one document, and no bomb', () => {
  assert.throws(() => parseDefinition('a: 1\n---\nb: 2\n', 'f'), { code: 'invalid-definition' });
  const rows = ['a: &a [x, x, x, x, x, x, x, x, x]'];
  for (const [to, from] of ['ba', 'cb', 'dc', 'ed', 'fe', 'gf', 'hg'].map((pair) => pair.split(''))) {
    rows.push(`${to}: &${to} [${Array(9).fill(`*${from}`).join(', ')}]`);
  }
  assert.throws(() => parseDefinition(rows.join('\n'), 'f'), { code: 'invalid-definition' });
});

test('XML is told from YAML by how it begins', () => {
  assert.equal(isXml('\n<!-- made by libvirt -->\n<domain type="kvm"/>'), true);
  assert.equal(isXml('name: "<a>"'), false);
});

test('paths of a definition are relative to its file', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'stasis-definition-'));
  const file = join(directory.path, 'web1.yaml');
  await writeFile(file, 'name: web1\n');
  assert.deepEqual(await readDefinitionFile(file), {
    text: 'name: web1\n',
    source: file,
    directory: directory.path,
  });
  await assert.rejects(readDefinitionFile(join(directory.path, 'none')), {
    code: 'invalid-request',
    exitStatus: 2,
  });
});
