/** Whether images are what they were: verify. */
import type { Command } from 'commander';
import { DEFAULT_IMAGE } from '../../api/constants.ts';
import type { Image, Operation } from '../../api/schemas.ts';
import type { VerifyOptions } from '../../client/index.ts';
import { StasisError } from '../../errors.ts';
import { duration } from '../arguments.ts';
import { mutate, noWaitOption, watched, type MutationOptions } from '../mutation.ts';
import { renderOutcomes } from '../operation-view.ts';
import { openSession, type Session } from '../session.ts';
import { paint } from '../style.ts';
import { printable } from '../text-width.ts';
import { count } from '../units.ts';

export function register(program: Command): void {
  program
    .command('verify')
    .summary('compare a save image with what it was when it was taken')
    .description(
      "Looks at an image's memory file, the layers of its disks, its media and what every file holds. Without a name it is the default image, or all of the guest's when it has none. An image that is damaged is broken from then on, and not restored. With --boot it is also restored for a trial, as a guest that has no network and is thrown away.",
    )
    .argument('[guest]')
    .argument('[image]', 'name of the image')
    .option('--all', 'all images of the guest, or of all guests')
    .option('--boot', 'also restore it for a trial, and wait until it shows that it lives')
    .option('--time-limit <time>', 'how long it may take to show that (default: 60s)', duration)
    .option('--expect <regex>', 'a line of its serial console must match this')
    .option('--reject <regex>', '… and none may match this')
    .addOption(noWaitOption())
    .addHelpText(
      'after',
      `
Without --expect, an answer of the guest agent is the proof; without that, that it ran for 10 seconds, its vCPUs
executed and were not stuck in one place, and its memory or its screen changed.

Examples:
  $ stasis verify web1 before-update
  $ stasis verify --all
  $ stasis verify web1 nightly --boot --time-limit 2m
  $ stasis verify web1 nightly --boot --expect 'login:' --reject 'I/O error'`,
    )
    .action(verify);
}

interface VerifyCommandOptions extends MutationOptions {
  readonly all?: true;
  readonly boot?: true;
  readonly timeLimit?: number;
  readonly expect?: string;
  readonly reject?: string;
}

async function verify(
  guest: string | undefined,
  image: string | undefined,
  options: VerifyCommandOptions,
  command: Command,
): Promise<void> {
  if (guest === undefined && options.all === undefined)
    throw new StasisError(
      'invalid-request',
      'which guest? stasis verify GUEST [IMAGE], or --all for all of them',
    );
  if (image !== undefined && options.all !== undefined)
    throw new StasisError('invalid-request', 'one image, or --all of them: not both');
  const session = await openSession(command);
  const { boot, timeLimit: timeLimitSeconds, expect, reject } = options;
  const request: VerifyOptions = { boot, timeLimitSeconds, expect, reject };
  if (guest === undefined || options.all !== undefined) return verifyAll(session, guest, request, options);
  try {
    await mutate(session, options, {
      run: (waiting) => session.client.verifySaveImage(guest, image ?? DEFAULT_IMAGE, request, waiting),
      document: reportOf,
      text: (verified, operation) => [summaryOf(verified), ...renderOutcomes(operation)],
    });
  } catch (error) {
    // Only then is it asked which there are: most have a default image, or it is named.
    if (image !== undefined || StasisError.from(error).code !== 'image-not-found') throw error;
    if ((await session.client.listSaveImages(guest)).length === 0) throw error;
    await verifyAll(session, guest, request, options);
  }
}

interface Failed {
  readonly guest: string;
  readonly image: string;
  readonly error: StasisError;
}

/** One after the other: disks are read at their best then. What can't be verified doesn't keep the others from it. */
async function verifyAll(
  session: Session,
  guest: string | undefined,
  request: VerifyOptions,
  { wait }: MutationOptions,
): Promise<void> {
  const { client, output } = session;
  if (!wait)
    throw new StasisError(
      'invalid-request',
      'several images are verified one after the other: wait for them',
    );
  const images = await client.listSaveImages(guest);
  const reports = [];
  const failed: Failed[] = [];
  for (const { guest: owner, name } of images) {
    try {
      const { result, operation } = await watched(session, (waiting) =>
        client.verifySaveImage(owner, name, request, waiting),
      );
      reports.push(reportOf(result, operation));
      if (!output.json) output.lines(summaryOf(result));
    } catch (error) {
      const failure = StasisError.from(error);
      if (failure.code === 'cancelled' || failure.code === 'image-not-found') {
        output.note(`${owner} / ${name} was not verified: ${failure.message}`);
        if (failure.code === 'image-not-found') continue;
      }
      failed.push({ guest: owner, image: name, error: failure });
      if (!output.json)
        output.lines(`${paint('red', '✘')} ${printable(`${owner} / ${name}: ${failure.message}`)}`);
    }
  }
  if (failed.length > 0) throw allOf(images.length, failed);
  output.print(reports, () => (images.length === 0 ? 'no save images yet: stasis save GUEST' : []));
}

function allOf(images: number, failed: readonly Failed[]): StasisError {
  const [worst] = failed.toSorted((a, b) => Number(isDamage(b.error)) - Number(isDamage(a.error)));
  const code = worst?.error.code ?? 'internal';
  const what = isDamage(worst?.error) ? 'not all are sound' : 'not all could be verified';
  return new StasisError(code, `${what}: ${failed.length} of ${count(images, 'image')}`, {
    details: { images: failed.map(({ guest, image, error }) => ({ guest, image, error: error.toJSON() })) },
  });
}

function isDamage(error: StasisError | undefined): boolean {
  return error?.code === 'image-damaged';
}

function reportOf(image: Image, operation: Operation) {
  return { ...image, parts: operation.outcomes };
}

function summaryOf({ guest, name, disks, verified }: Image): string {
  const lived =
    verified.bootAt !== null && verified.bootAt === verified.checksumsAt ? ', and it came to life' : '';
  return `${paint('green', '✔')} ${printable(`${guest} / ${name}: memory and ${count(disks.length, 'disk')} are sound${lived}`)}`;
}
