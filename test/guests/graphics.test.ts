import assert from 'node:assert/strict';
import { test } from 'node:test';
import { vncServer } from '../../src/guests/devices/graphics.ts';

test('a VNC server is found on its socket or its port, and a guest without one has none', () => {
  assert.deepEqual(vncServer('vnc'), { socket: 'vnc.sock' });
  assert.deepEqual(vncServer({ type: 'vnc', port: 5907 }), { host: '127.0.0.1', port: 5907 });
  assert.deepEqual(vncServer({ type: 'vnc', port: 5907, listen: '::1' }), { host: '::1', port: 5907 });
  for (const none of ['none', 'spice', { type: 'spice', port: 5907 }] as const)
    assert.equal(vncServer(none), undefined);
});
