/** A refusal, in the form that all have. */
import type { ServerResponse } from 'node:http';
import type { StasisError } from '../errors.ts';

/** Before anything was answered it is an error; after that the connection breaks, which the page sees too. */
export function sendError(response: ServerResponse, error: StasisError): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  response.writeHead(error.httpStatus, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ error: error.toJSON() }));
}
