/** The client of programs under Node: the command line, scripts, tests. */
import type { Duplex } from 'node:stream';
import { Client, guestPath } from './client.ts';
import { chosenEndpoint, sessionEndpoint, type Endpoint } from './connect.ts';
import { HeldExport } from './disk-export.ts';
import type { Revive } from './reconnection.ts';
import type { CallOptions, Waiting } from './requests.ts';
import { nodeTransport, upgrade } from './transport.ts';

/** Which daemon a client talks to. */
export interface ClientOptions {
  /** `unix:PATH` or `https://HOST`; default: `STASIS_CONNECT`, else the user's session daemon */
  readonly connect?: string | Endpoint | undefined;
  /** called before each attempt to reach a daemon again that went away while an operation ran */
  readonly revive?: Revive | undefined;
}

/** A daemon's client under Node, on this host or another one. It holds no connection: there is nothing to close. */
export class StasisClient extends Client {
  /** where its daemon is */
  readonly endpoint: Endpoint;

  /** @throws `invalid-request` when `connect` or `STASIS_CONNECT` is no address of a daemon */
  constructor(options: ClientOptions = {}) {
    const { connect } = options;
    const endpoint = typeof connect === 'object' ? connect : (chosenEndpoint(connect) ?? sessionEndpoint());
    super(nodeTransport(endpoint), options.revive);
    this.endpoint = endpoint;
  }

  /** The serial console, both ways. The stream is the caller's to destroy; aborting the signal destroys it too. */
  openConsole(guest: string, options: CallOptions = {}): Promise<Duplex> {
    const exchange = {
      method: 'GET',
      path: `${guestPath(guest)}/console`,
      signal: options.signal,
    } as const;
    return upgrade(this.endpoint, exchange, 'stasis-console');
  }

  /**
   * Serves a disk of an image, as it was at that instant, to programs on the daemon's host, read-only, while the guest
   * runs: `info.uri` is for NBD clients, and what they read is raw. It ends when the caller disposes it.
   *
   * @param request.disk may be left out when the image has only one
   */
  async exportDisk(
    guest: string,
    image: string,
    request: { readonly disk?: string | undefined } = {},
    options: Waiting = {},
  ): Promise<HeldExport> {
    const held = await HeldExport.hold(await this.serveDisk(guest, image, request, options));
    try {
      await this.claimExport(held.info.id);
      return held;
    } catch (error) {
      held[Symbol.dispose]();
      throw error;
    }
  }
}
