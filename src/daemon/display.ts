/** A guest's display: QEMU's own VNC server, which is there for nobody but us and serves each viewer by itself. */
import { join } from 'node:path';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { GuestRecord } from '../catalog/guests.ts';
import { StasisError } from '../errors.ts';
import { VNC_SOCKET } from '../guests/command-line.ts';
import { storedDefinition } from '../guests/definition.ts';
import { connectTo } from './guest-socket.ts';
import type { ViewContext } from './views.ts';

/**
 * A connection to the VNC server of a guest that runs.
 * @throws StasisError `unsupported` for a guest without a display, `invalid-state` for one that doesn't run
 */
export function openDisplay({ host }: ViewContext, guest: GuestRecord): Promise<Socket> {
  if (storedDefinition(guest).graphics === 'none') {
    throw new StasisError(
      'unsupported',
      `guest ${guest.name} has no display; define it with \`graphics: vnc\``,
      {
        guest: guest.name,
      },
    );
  }
  return connectTo(join(host.supervisor.get(guest.uuid, guest.name).runDirectory, VNC_SOCKET));
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
