/** A QEMU that a guest has broken out of: it keeps to the protocol, and answers whatever it likes. */
import assert from 'node:assert/strict';
import { duplexPair, type Duplex } from 'node:stream';
import { StasisError } from '../../src/errors.ts';
import { layerOfNode } from '../../src/guests/command-line.ts';
import { backingChain, headNodes, nodeNames } from '../../src/qemu/block/block-graph.ts';
import { featuresOver } from '../../src/qemu/build/features.ts';
import { lackingFeatures, processorFeatures } from '../../src/qemu/build/processor.ts';
import { captureBlockers } from '../../src/qemu/capture/migration-blockers.ts';
import { memoryIsArriving, waitForMigration } from '../../src/qemu/migration.ts';
import { QmpClient } from '../../src/qemu/qmp/client.ts';
import { LineSplitter } from '../../src/qemu/qmp/line-splitter.ts';
import { memoryFileOf } from '../../src/qemu/restore/mapped.ts';
import { placesOfCpus } from '../../src/qemu/vcpus.ts';
import { text, type Target } from './target.ts';

export const qemuAnswers: Target = {
  name: 'qemu-answers',
  reads: 'what a QEMU answers to each command, and the events that it tells, all that is asked of it',
  syntax: 'json',
  words: [
    ...[
      '"query-block"',
      '"inserted"',
      '"node-name"',
      '"edges"',
      '"backing"',
      '"status"',
      '"postcopy-paused"',
    ],
    ...['RIP=', 'HLT=0', '/machine/peripheral/', '#block1', '"events"', '"MIGRATION"', '"__proto__"'],
  ],
  handled: [],
  read: async (input) => {
    const [ours, theirs] = duplexPair();
    answerBy(answersIn(text(input)), theirs);
    await using qmp = await QmpClient.over(ours, { timeoutMs: 1000 });
    using migration = qmp.watch('MIGRATION', 'MIGRATION_PASS');
    using jobs = qmp.watch('BLOCK_JOB_COMPLETED', 'BLOCK_JOB_PENDING', 'VSERPORT_CHANGE');
    const answers = await Promise.allSettled([
      headsAndChains(qmp),
      captureBlockers(qmp, new Set(['head'])),
      featuresOver(qmp),
      processorFeatures(qmp).then((words) => lackingFeatures(words, [])),
      memoryFileOf(qmp),
      memoryIsArriving(qmp),
      placesOfCpus(qmp),
      qmp.execute('query-block-jobs'),
      qmp.execute('query-chardev'),
      waitForMigration(qmp, migration, ['completed'], { timeoutMs: 0, onProgress: finite }),
    ]);
    for (const answer of answers)
      if (answer.status === 'rejected' && !(answer.reason instanceof StasisError)) throw answer.reason;
    for (const { data } of jobs.drain())
      assert.ok('id' in data ? typeof data.id === 'string' : typeof data.device === 'string');
    theirs.destroy();
  },
};

async function headsAndChains(qmp: QmpClient): Promise<void> {
  const names = await nodeNames(qmp);
  for (const node of new Set([...(await headNodes(qmp)).values(), ...names].slice(0, 3))) {
    assert.equal(typeof (layerOfNode(node) ?? ''), 'string');
    const chain = await backingChain(qmp, node);
    assert.equal(new Set(chain).size <= chain.length, true);
  }
}

function finite({
  bytesDone,
  bytesTotal,
}: {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}): void {
  assert.ok(Number.isFinite(bytesDone) && Number.isFinite(bytesTotal));
}

function answersIn(json: string): Readonly<Record<string, unknown>> {
  try {
    const document: unknown = JSON.parse(json);
    return { ...Object(document) };
  } catch {
    return {};
  }
}

const GREETING = {
  QMP: { version: { qemu: { major: 10, minor: 0, micro: 2 }, package: '' }, capabilities: [] },
};

/** Answers each command with what a document has for it; its `events` come first. */
function answerBy(answers: Readonly<Record<string, unknown>>, stream: Duplex): void {
  const lines = new LineSplitter(1 << 20);
  const say = (message: object) => void stream.write(`${JSON.stringify(message)}\n`);
  const events: readonly unknown[] = Array.isArray(answers['events']) ? answers['events'] : [];
  stream.on('error', () => stream.destroy());
  stream.on('data', (chunk: Buffer) => {
    for (const line of lines.push(chunk)) {
      const { execute, id } = { execute: '', id: 0, ...Object(JSON.parse(line)) };
      if (execute === 'query-named-block-nodes')
        for (const event of events) say({ timestamp: { seconds: 1, microseconds: 2 }, ...Object(event) });
      say({ return: answers[execute] ?? {}, id });
    }
  });
  say(GREETING);
}
