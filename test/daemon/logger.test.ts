import assert from 'node:assert/strict';
import { AsyncResource } from 'node:async_hooks';
import { openSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';
import { createLogger, forJournal, forPeople, logDestination } from '../../src/daemon/logger.ts';
import { redacted } from '../../src/daemon/redact.ts';
import { inLogScope } from '../../src/log.ts';

const logged = (format?: (line: string) => string) => {
  const lines: string[] = [];
  const logger = createLogger('debug', { write: (line) => lines.push(line) }, format ?? ((line) => line));
  return { logger, lines, documents: () => lines.map((line): Record<string, unknown> => JSON.parse(line)) };
};

test('a secret is told nowhere, whatever it is in', () => {
  const { logger, lines } = logged();
  const cookie = 'stasis-session=hunter2';
  logger.info({ vnc: { password: 'hunter2' }, list: [{ apiToken: 'hunter2' }], headers: { cookie } }, 'a');
  logger.warn({ secret: 'hunter2' }, 'append root=/dev/sda password=hunter2 quiet');
  logger.error({ err: new Error('qemu -object secret,id=x,secret=hunter2 -S') }, 'token=hunter2');
  assert.equal(lines.length, 3);
  for (const line of lines) assert.doesNotMatch(line, /hunter2/);
  assert.match(lines[1] ?? '', /password=\[redacted\] quiet/);
  assert.match(lines[2] ?? '', /secret=\[redacted\] -S/);
});

test('what is no secret is left as it is', () => {
  const definition = {
    name: 'web',
    boot: { cmdline: 'quiet' },
    disks: [{ path: '/a' }],
    none: null,
    tpm: true,
  };
  assert.deepEqual(redacted(definition), definition);
  assert.deepEqual(redacted({ secureBoot: true, hasPassword: false }), {
    secureBoot: true,
    hasPassword: false,
  });
});

test('work tells its fields to whatever is logged below it, until it is over', async () => {
  const { logger, documents } = logged();
  let later = () => logger.info({}, 'never');
  await inLogScope({ request: 'r' }, () =>
    inLogScope({ operation: 'o', guest: 'web' }, async () => {
      logger.info({ guest: 'other' }, 'in it');
      later = AsyncResource.bind(() => logger.info({}, 'after it'));
    }),
  );
  later();
  logger.info({}, 'outside');
  const told = documents().map(({ msg, request, operation, guest }) => [msg, request, operation, guest]);
  assert.deepEqual(told, [
    ['in it', 'r', 'o', 'other'],
    ['after it', undefined, undefined, undefined],
    ['outside', undefined, undefined, undefined],
  ]);
});

test('journald is told the priority, people a line', () => {
  const journal = logged(forJournal);
  journal.logger.warn({}, 'a');
  journal.logger.error({}, 'b');
  assert.deepEqual(
    journal.lines.map((line) => line.slice(0, 4)),
    ['<4>{', '<3>{'],
  );
  const people = logged(forPeople);
  people.logger.info({ guest: 'web', why: 'it is so' }, 'hello');
  assert.match(people.lines[0] ?? '', /^\d{4}-.+Z INFO hello guest=web why="it is so"\n$/);
});

test('a log on a full disk is no reason to end', async () => {
  const logger = createLogger('info', logDestination(openSync('/dev/full', 'w')));
  for (let line = 0; line < 3; line += 1) logger.info({}, 'nobody will read this');
  await nextTurn();
});
