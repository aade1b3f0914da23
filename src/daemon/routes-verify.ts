/** Whether images are what they were when they were taken. */
import Type from 'typebox';
import { VerifyRequest } from '../api/schemas.ts';
import { StasisError } from '../errors.ts';
import { verifyProcedure } from '../images/verify.ts';
import { subjectOf, submit } from './respond.ts';
import { Accepted, type Routes } from './routes-guests.ts';
import { ImageParams } from './routes-images.ts';
import type { ViewContext } from './views.ts';

export function verifyRoutes(routes: Routes, context: ViewContext): void {
  routes.post(
    '/v1/guests/:guest/images/:image/verify',
    {
      schema: {
        summary:
          'Compare an image with what it was when it was taken, and restore it for a trial if asked to',
        params: ImageParams,
        body: Type.Optional(VerifyRequest),
        response: Accepted,
      },
    },
    async (request, reply) => {
      const { guest, image: name } = request.params;
      const args = request.body ?? {};
      if (args.boot !== true && (args.expect ?? args.reject ?? args.timeLimitSeconds) !== undefined)
        throw new StasisError(
          'invalid-request',
          'a pattern and a time limit are for a trial restore: ask for `boot` too',
          { guest, image: name },
        );
      return submit(context, reply, {
        kind: 'verify',
        procedure: verifyProcedure(context.host),
        subject: await subjectOf(context, guest, name),
        args: { ...args, name },
      });
    },
  );
}
