/** What a browser's side of a channel sends: a handshake, and frames. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { duplexPair } from 'node:stream';
import { joinWebSocket, webSockets } from '../../src/daemon/upgrades.ts';
import { pieces, type Target } from './target.ts';

export const webSocket: Target = {
  name: 'web-socket',
  reads:
    'key, version and extensions of a WebSocket handshake, each with a line feed, and the frames after it',
  syntax: 'binary',
  words: [
    'dGhlIHNhbXBsZSBub25jZQ==',
    '13',
    'permessage-deflate',
    '\x82\x80',
    '\x82\xfe',
    '\x82\xff',
    '\x88\x82',
    '\x89\x80',
  ],
  handled: [],
  read: async (input) => {
    const whole = await received(input, (frames) => [frames]);
    const cut = await received(input, pieces);
    assert.ok(whole.length <= input.length);
    assert.ok(whole.equals(cut), 'cut elsewhere they are the same frames');
  },
};

/** What comes out of a channel, until its end. */
async function received(input: Buffer, cut: (frames: Buffer) => Buffer[]): Promise<Buffer> {
  const [key = '', version = '', extensions = '', ...rest] = input.toString('latin1').split('\n');
  const [client, browser] = duplexPair();
  const request = new IncomingMessage(new Socket());
  request.method = 'GET';
  request.url = '/v1/guests/web1/display';
  request.headers = {
    ...{ upgrade: 'websocket', connection: 'Upgrade' },
    ...{ 'sec-websocket-key': key, 'sec-websocket-version': version },
    ...(extensions === '' ? {} : { 'sec-websocket-extensions': extensions }),
  };
  const parts: Buffer[] = [];
  const ended = Promise.withResolvers<void>();
  client.on('error', () => client.destroy());
  browser.on('error', () => browser.destroy());
  browser.resume();
  joinWebSocket(webSockets(), { request, client, head: Buffer.alloc(0) }, (viewer) => {
    viewer.on('data', (data: Buffer) => parts.push(data));
    viewer.once('close', ended.resolve);
    viewer.on('end', () => viewer.end());
    if (viewer.destroyed) ended.resolve();
  });
  for (const frames of cut(Buffer.from(rest.join('\n'), 'latin1'))) browser.write(frames);
  browser.end();
  await ended.promise;
  if (!client.closed) await once(client.destroy(), 'close');
  browser.destroy();
  return Buffer.concat(parts);
}
