import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { SseParser, readSse, type SseMessage } from '../../src/client/sse.ts';

describe('an event stream', () => {
  const cases: [text: string, messages: Partial<SseMessage>[]][] = [
    ['data: a\n\n', [{ event: 'message', data: 'a' }]],
    ['data:a\n\n', [{ data: 'a' }]],
    ['data:  a\n\n', [{ data: ' a' }]],
    ['data: a\ndata: b\n\n', [{ data: 'a\nb' }]],
    ['data\n\n', [{ data: '' }]],
    ['event: x\ndata: 1\n\ndata: 2\n\n', [{ event: 'x' }, { event: 'message' }]],
    [': hello\n\ndata: 1\n\n', [{ data: '1' }]],
    ['event: x\n\n', []],
    ['data: cut off\n', []],
    ['id: 7\ndata: 1\n\ndata: 2\n\n', [{ lastEventId: '7' }, { lastEventId: '7' }]],
    ['id: 7\n\ndata: 2\n\n', [{ lastEventId: '7' }]],
    ['id: a\0b\ndata: 2\n\n', [{ lastEventId: '' }]],
    ['\uFEFFdata: 1\n\n', [{ data: '1' }]],
    ['unknown: 1\nretry: 5\ndata: 2\n\n', [{ data: '2' }]],
  ];
  for (const [text, expected] of cases) {
    test(`${JSON.stringify(text)} has ${expected.length} messages`, () => {
      const messages = new SseParser().push(text);
      assert.equal(messages.length, expected.length);
      for (const [index, fields] of expected.entries())
        assert.partialDeepStrictEqual(messages[index], fields);
    });
  }

  const line = fc.string({ unit: 'binary' }).filter((text) => !/[\r\n\0]/.test(text));
  const lineEnd = fc.constantFrom('\n', '\r', '\r\n');
  const message = fc.record({
    event: line.filter((text) => text !== ''),
    id: line,
    lines: fc.array(line, { minLength: 1, maxLength: 4 }),
    comment: line,
  });

  test('comes out as it was sent, however it is cut and whichever line ends it uses', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(message),
        lineEnd,
        fc.array(fc.nat(9), { minLength: 1 }),
        async (sent, end, sizes) => {
          const text = sent
            .map(({ event, id, lines, comment }) =>
              [
                `: ${comment}`,
                `event: ${event}`,
                `id: ${id}`,
                ...lines.map((each) => `data: ${each}`),
                '',
                '',
              ].join(end),
            )
            .join('');
          const received = await messagesIn(Buffer.from(text), sizes);
          // Unpaired surrogates don't survive UTF-8; what is sent is what the bytes say.
          const asBytes = (value: string) => Buffer.from(value).toString();
          assert.deepEqual(
            received,
            sent.map(({ event, id, lines }) => ({
              event: asBytes(event),
              data: asBytes(lines.join('\n')),
              lastEventId: asBytes(id),
            })),
          );
        },
      ),
    );
  });

  test('never throws, whatever the bytes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 500 }),
        fc.array(fc.nat(9), { minLength: 1 }),
        async (bytes, sizes) => {
          for (const { data, event } of await messagesIn(bytes, sizes)) {
            assert.ok(event !== '' && !data.includes('\r'));
          }
        },
      ),
    );
  });

  test('refuses a message that never ends', () => {
    const parser = new SseParser();
    const piece = 'x'.repeat(16 * 1024 * 1024);
    assert.throws(
      () => {
        for (let sent = 0; sent < 6; sent += 1) parser.push(piece);
      },
      { code: 'internal' },
    );
  });
});

async function messagesIn(bytes: Uint8Array, sizes: readonly number[]): Promise<SseMessage[]> {
  const messages: SseMessage[] = [];
  for await (const message of readSse(pieces(bytes, sizes))) messages.push(message);
  return messages;
}

/** The bytes in pieces of the given sizes, over and over. */
async function* pieces(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let at = 0, index = 0; at < bytes.length; index += 1) {
    // a round of only empty pieces would never end
    const size = sizes[index % sizes.length] ?? 0;
    const next = at + (index >= sizes.length ? Math.max(1, size) : size);
    yield bytes.subarray(at, next);
    at = next;
  }
}
