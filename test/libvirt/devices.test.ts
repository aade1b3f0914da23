/** A guest brought from libvirt sees the devices that it saw there, each where it was. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempDisposable, readFile, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { commandLine } from '../../src/guests/command-line.ts';
import { pinDefinition } from '../../src/guests/definition.ts';
import { readDomain } from '../../src/libvirt/domain.ts';
import { viewMachine } from './machine-view.ts';
import { withoutHost, wordsOf } from './host-parts.ts';

const FIXTURES = join(import.meta.dirname, 'fixtures');
const run = promisify(execFile);

/** What Stasis adds on purpose: a device without a bus, by which a guest learns that it went back in time. */
const ADDED = ['child<vmgenid> -1'];

for (const name of ['debian', 'debian-uefi', 'windows', 'old', 'many']) {
  test(`${name}: QEMU makes the same machine of Stasis's command line as of libvirt's`, async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), 'stasis-libvirt-'));
    const { definition, unsupported } = await readDomain(
      await readFile(join(FIXTURES, `${name}.xml`), 'utf8'),
      name,
    );
    assert.deepEqual(unsupported, []);
    // Firmware and TPM are made by other programs, and left out of both.
    const { firmware: _firmware, tpm: _tpm, ...rest } = definition;
    const pinned = await pinDefinition(rest, '/', {
      resolveFirmware: () => Promise.reject(new Error('it has none')),
      resolveMachine: (machine) => Promise.resolve(machine),
      resolveAccelerator: () => Promise.resolve('tcg'),
    });
    await makeDisks(pinned.disks, directory.path);

    const theirs = wordsOf(await readFile(join(FIXTURES, `${name}.argv`), 'utf8')).slice(1);
    const ours = commandLine(pinned, { chains: new Map() });
    const expected = await viewMachine(withoutHost(theirs, directory.path), directory.path);
    const actual = await viewMachine(withoutHost(ours, directory.path), directory.path);

    assert.deepEqual(actual.tree, expected.tree);
    assert.deepEqual(actual.devices, [...expected.devices, ...ADDED].toSorted());
    assert.deepEqual(actual.machine, expected.machine);
    assert.deepEqual(actual.processors, expected.processors);
  });
}

/** Disks of the size that the fixtures were made with, under their names. */
async function makeDisks(
  disks: readonly { readonly path: string; readonly format: string }[],
  directory: string,
): Promise<void> {
  for (const { path, format } of disks) {
    const file = join(directory, path.slice(path.lastIndexOf('/') + 1));
    await writeFile(file, '');
    if (format === 'raw') await truncate(file, 1024 ** 2);
    else await run('qemu-img', ['create', '-q', '-f', format, file, '64M']);
  }
}
