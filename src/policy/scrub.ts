/**
 * A walk through all images on a schedule of the host's: each is verified, those first whose last time is the longest ago. It
 * reads no faster than it may and gives way to whatever else is done to a guest, whose image then comes last. A daemon that
 * ends in the middle of it goes on with the rest when it starts again. A time at which no daemon ran is not made up for.
 */
import { getGuestByUuid } from '../catalog/guests.ts';
import { findImageById, listImages, type ImageRecord } from '../catalog/images.ts';
import { insertScrub, lastScrub, updateScrub, type ScrubRecord } from '../catalog/scrubs.ts';
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { verifyProcedure } from '../images/verify.ts';
import { verificationOf } from '../images/verification.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { fromStored } from '../stored.ts';
import { timetable, type CronTime, type Timetable } from '../timetable.ts';
import { waitUntil, type Clock } from './clock.ts';
import { runOnGuest } from './guest-work.ts';

export interface ScrubOptions {
  readonly host: Host;
  readonly engine: OperationEngine;
  readonly schedule: CronTime;
  readonly bytesPerSecond: number;
  readonly clock: Clock;
}

/** An image that has to give way so often is left to the next walk. */
const MAX_ATTEMPTS = 5;

interface Findings {
  verified: number;
  readonly damaged: string[];
  readonly skipped: string[];
}

export class Scrubber implements AsyncDisposable {
  readonly #options: ScrubOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #times: Timetable;
  #nextMs: number | null;

  /** Begins to wait for its time. @throws StasisError `invalid-request` for a schedule that is none */
  constructor(options: ScrubOptions) {
    this.#options = options;
    this.#times = timetable(options.schedule);
    this.#nextMs = this.#times.next(options.clock.now());
    this.#running = this.#run();
  }

  /** Its cron expression. */
  get schedule(): string {
    return this.#options.schedule.cron;
  }

  /** When the next walk begins, unless one is under way; null: never. */
  get nextAt(): string | null {
    return this.#nextMs === null ? null : new Date(this.#nextMs).toISOString();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new StasisError('interrupted', 'the daemon ends'));
    await this.#running;
  }

  /** Never rejects: it is its own owner. */
  async #run(): Promise<void> {
    const { host, clock } = this.#options;
    const { signal } = this.#stop;
    try {
      const interrupted = await lastScrub(host.catalog);
      if (interrupted !== undefined && interrupted.finishedAt === null) await this.#walk(interrupted);
      while (this.#nextMs !== null && !signal.aborted) {
        await waitUntil(clock, this.#nextMs, signal);
        if (signal.aborted) return;
        await this.#begin();
        this.#nextMs = this.#times.next(clock.now());
      }
    } catch (error) {
      if (!signal.aborted) host.log.error({ err: error }, 'images are not scrubbed any more');
    }
  }

  async #begin(): Promise<void> {
    const { host, clock } = this.#options;
    await insertScrub(host.catalog, new Date(clock.now()).toISOString());
    const record = await lastScrub(host.catalog);
    if (record !== undefined) await this.#walk(record);
  }

  async #walk(record: ScrubRecord): Promise<void> {
    const { host } = this.#options;
    const queue = await oldestFirst(host, record.startedAt);
    const findings: Findings = {
      verified: record.verified,
      damaged: fromStored<string[]>(record.damaged),
      skipped: fromStored<string[]>(record.skipped),
    };
    await tell(host, 'scrub-started', `scrubbing ${queue.length} images, the longest not verified first`);
    const attempts = new Map<string, number>();
    for (let image = queue.shift(); image !== undefined; image = queue.shift()) {
      const tried = (attempts.get(image.id) ?? 0) + 1;
      attempts.set(image.id, tried);
      if (await this.#verify(image, findings, tried < MAX_ATTEMPTS)) queue.push(image);
      if (this.#stop.signal.aborted) return;
      await updateScrub(host.catalog, record.id, stored(findings));
    }
    await updateScrub(host.catalog, record.id, { ...stored(findings), finishedAt: new Date().toISOString() });
    await tell(host, 'scrub-ended', summaryOf(findings));
  }

  /** @returns whether it gave way and is to be tried again */
  async #verify(image: ImageRecord, findings: Findings, mayRetry: boolean): Promise<boolean> {
    const { host, engine, bytesPerSecond } = this.#options;
    if ((await findImageById(host.catalog, image.id))?.name !== image.name) return false;
    const { uuid, name } = await getGuestByUuid(host.catalog, image.guest);
    const subject = { guest: uuid, guestName: name, image: image.name };
    const args = { name: image.name, bytesPerSecond };
    const { signal } = this.#stop;
    try {
      await runOnGuest(engine, verifyProcedure(host), { kind: 'verify', subject, args }, { signal });
      findings.verified += 1;
    } catch (error) {
      const { code, message } = StasisError.from(error);
      if (signal.aborted || code === 'image-not-found') return false;
      if (code === 'cancelled' && mayRetry) return true;
      if (code === 'image-damaged') findings.damaged.push(`${name} / ${image.name}`);
      else findings.skipped.push(`${name} / ${image.name}: ${message}`);
    }
    return false;
  }
}

/** All that this walk has not seen yet. */
async function oldestFirst(host: Host, startedAt: string): Promise<ImageRecord[]> {
  const images = await listImages(host.catalog);
  const seenAt = (image: ImageRecord) => verificationOf(image).checksumsAt ?? '';
  return images
    .filter((image) => seenAt(image) < startedAt)
    .toSorted((a, b) => (seenAt(a) < seenAt(b) ? -1 : Number(seenAt(a) > seenAt(b))));
}

function stored({ verified, damaged, skipped }: Findings) {
  return { verified, damaged: JSON.stringify(damaged), skipped: JSON.stringify(skipped) };
}

function summaryOf({ verified, damaged, skipped }: Findings): string {
  const bad = damaged.length === 0 ? 'none damaged' : `damaged: ${damaged.join(', ')}`;
  const left = skipped.length === 0 ? '' : `; not verified: ${skipped.join('; ')}`;
  return `images scrubbed: ${verified} sound, ${bad}${left}`;
}

function tell(host: Host, action: string, message: string): Promise<void> {
  return host.events.publish({ type: 'daemon', action, message });
}
