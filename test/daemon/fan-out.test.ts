/** Many are told the same in slices, between which others are served, and nobody while a guest stands still. */
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import Fastify from 'fastify';
import { FanOut } from '../../src/daemon/fan-out.ts';
import { sendLongList } from '../../src/daemon/json-text.ts';
import { stillness } from '../../src/stillness.ts';

const MANY = 120;

/** However slowly the test runs. */
function standingStill(): Disposable {
  mock.timers.enable({ apis: ['setTimeout'] });
  const still = stillness.begin();
  return {
    [Symbol.dispose]() {
      still[Symbol.dispose]();
      mock.timers.reset();
    },
  };
}

/** As many listeners, and what each was told. */
function crowd(fanOut: FanOut<string>) {
  const told = Array.from({ length: MANY }, (): string[] => []);
  const leave = told.map((each) => fanOut.listen((message) => void each.push(message)));
  return { told, leave, count: () => told.filter((each) => each.length > 0).length };
}

test('many are told in slices, each in order', async () => {
  const fanOut = new FanOut<string>();
  const { told, leave, count } = crowd(fanOut);
  fanOut.tell('first');
  fanOut.tell('second');
  while (count() === 0) await turn();
  assert.ok(count() < MANY, 'the first slice');
  leave.at(-1)?.();
  const late: string[] = [];
  fanOut.listen((message) => void late.push(message));
  await untilQuiet(fanOut);
  assert.deepEqual(told[0], ['first', 'second', 'mark']);
  assert.deepEqual(told.at(-2), ['first', 'second', 'mark']);
  assert.deepEqual(told.at(-1), [], 'who has left is told nothing');
  assert.deepEqual(late, ['mark'], 'nor is who came later');
});

test('while a guest stands still nobody is told, and of a state then only the latest', async () => {
  const fanOut = new FanOut<string>();
  const { told, count } = crowd(fanOut);
  fanOut.tell('begun');
  while (count() === 0) await turn();
  const begun = count();
  const still = standingStill();
  fanOut.tell('30 %', 'operation');
  fanOut.tell('an event');
  fanOut.tell('40 %', 'operation');
  for (let turns = 0; turns < 10; turns += 1) await turn();
  assert.ok(begun < MANY);
  assert.equal(count(), begun, 'what is under way stops too');
  still[Symbol.dispose]();
  await untilQuiet(fanOut);
  for (const each of told) assert.deepEqual(each, ['begun', 'an event', '40 %', 'mark']);
});

test('of all that wait one has its turn each time that Node looks for what has come, in their order', async () => {
  const had: number[] = [];
  for (let number = 0; number < 5; number += 1) void stillness.turn().then(() => had.push(number));
  const seen: number[] = [];
  while (had.length < 5) {
    await turn();
    seen.push(had.length);
  }
  assert.deepEqual(had, [0, 1, 2, 3, 4]);
  assert.ok(
    seen.every((count, index) => count - (seen[index - 1] ?? 0) <= 1),
    seen.join(),
  );
});

test('a long list stops while a guest stands still', async () => {
  let made = 0;
  const server = Fastify();
  server.get('/', (_request, reply) =>
    sendLongList(
      reply,
      (async function* pieces() {
        for (; made < 5; made += 1) {
          yield await Promise.resolve(`[${made}]`);
        }
      })(),
    ),
  );
  const still = standingStill();
  const reply = server.inject('/');
  for (let turns = 0; turns < 50; turns += 1) await turn();
  assert.ok(made < 5);
  still[Symbol.dispose]();
  assert.deepEqual((await reply).json(), [0, 1, 2, 3, 4]);
  await server.close();
});

test('a guest that stands still for long holds nobody up for longer than a quarter of a second', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    using first = stillness.begin();
    using second = stillness.begin();
    let isOver = false;
    const over = stillness.turn().then(() => (isOver = true));
    await turn();
    mock.timers.tick(249);
    await turn();
    assert.ok(stillness.isNow && !isOver);
    mock.timers.tick(1);
    await over;
    assert.ok(!stillness.isNow);
    first[Symbol.dispose]();
    assert.ok(!stillness.isNow, 'another still stands');
    second[Symbol.dispose]();
    using next = stillness.begin();
    assert.ok(stillness.isNow);
    next[Symbol.dispose]();
    assert.ok(!stillness.isNow);
  } finally {
    mock.timers.reset();
  }
});

/** What is told last comes to the one who listens last. */
async function untilQuiet(fanOut: FanOut<string>): Promise<void> {
  const reached = Promise.withResolvers<void>();
  const leave = fanOut.listen(() => reached.resolve());
  fanOut.tell('mark');
  await reached.promise;
  leave();
}
