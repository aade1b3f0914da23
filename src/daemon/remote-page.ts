/** The page for browsers on other machines, beside the API and under the same headers. Its files are for anybody: they hold nothing. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { StasisError } from '../errors.ts';
import { readAssets, sendAsset, type Assets } from '../page/assets.ts';
import { originOf, setSecurityHeaders } from '../page/guard.ts';
import { sendError } from '../page/send-error.ts';

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Answers with the page's files and hands on all else, and tells browsers what holds for both. */
export function withPage(api: Handler, log: Logger): Handler {
  let reading: Promise<Assets> | undefined;
  const assetAt = async ({ method, url = '' }: IncomingMessage) => {
    if (method !== 'GET' || url.startsWith('/v1/')) return undefined;
    reading ??= readAssets().catch((error: unknown) => {
      log.error({ err: error }, 'the API is served without the page');
      return new Map();
    });
    return (await reading).get(url.slice(1));
  };
  const serve: (...of: Parameters<Handler>) => Promise<void> = async (request, response) => {
    setSecurityHeaders(response, originOf(request, 'https'));
    const asset = await assetAt(request);
    if (asset === undefined) api(request, response);
    else sendAsset(request, response, asset);
  };
  return (request, response) =>
    void serve(request, response).catch((error: unknown) => sendError(response, StasisError.from(error)));
}
