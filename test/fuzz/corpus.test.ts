/**
 * Whatever reads foreign bytes reads the corpora, all that was once a finding among them, and what is made of them in a moment.
 * `npm run fuzz` goes on for longer; docs/FUZZING.md has what it found.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../support/random.ts';
import { readCorpus } from './corpus.ts';
import { judge } from './fuzzer.ts';
import { mutate } from './mutate.ts';
import { TARGETS } from './targets.ts';

const SEED = Number(process.env['STASIS_SEED'] ?? 20_261);
const MOMENT_MS = 300;

for (const target of TARGETS) {
  test(`${target.name}: ${target.reads}`, async () => {
    const corpus = readCorpus(target.name);
    assert.ok(corpus.length > 0, 'there are examples');
    for (const { name, bytes } of corpus) assert.equal(await judge(target, bytes), undefined, name);
    const random = new Random(SEED);
    const inputs = corpus.map(({ bytes }) => bytes);
    const end = performance.now() + MOMENT_MS;
    while (performance.now() < end) {
      const input = mutate(random.of(inputs), target.syntax, random, { others: inputs, words: target.words });
      assert.equal(await judge(target, input), undefined, input.toString('base64'));
    }
  });
}
