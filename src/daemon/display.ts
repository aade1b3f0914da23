/** A guest's display: QEMU's own VNC server, which is there for nobody but us and serves each viewer by itself. */
import { join } from 'node:path';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { GuestRecord } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import { storedDefinition } from '../guests/definition.ts';
import { vncServer } from '../guests/devices/graphics.ts';
import { connectTo, connectToPort, servedFor } from '../qemu/guest-socket.ts';
import type { ViewContext } from './views.ts';

/**
 * A connection to the VNC server of a guest that runs.
 * @throws StasisError `unsupported` for a guest without one, `invalid-state` for one that doesn't run, `guest-crashed`
 */
export function openDisplay({ host }: ViewContext, guest: GuestRecord): Promise<Socket> {
  const server = vncServer(storedDefinition(guest).graphics);
  if (server === undefined) {
    throw new StasisError(
      'unsupported',
      `guest ${guest.name} has no VNC display; define it with \`graphics: vnc\``,
      { guest: guest.name },
    );
  }
  const { runDirectory } = host.supervisor.get(guest.uuid, guest.name);
  const connecting =
    'socket' in server
      ? connectTo(join(runDirectory, server.socket))
      : connectToPort(server.host, server.port);
  return servedFor(guest.name, 'display', connecting);
}

/** Joins a viewer and a display for as long as both are there; a slow one holds the other back. */
export function joinDisplay(display: Socket, viewer: Duplex): void {
  if (viewer.destroyed) {
    display.destroy();
    return;
  }
  display.on('error', () => display.destroy());
  display.on('close', () => viewer.destroy());
  viewer.on('close', () => display.destroy());
  display.pipe(viewer).pipe(display);
}
