/**
 * Removing what a guest's rules don't keep, as one operation: while it holds the guest nobody makes, protects or deletes an image of
 * it, so what is judged is what there is. Each image goes by an ordinary delete of its own.
 */
import type { RetentionPlan } from '../api/schedules.ts';
import { getGuestByUuid, type GuestRecord } from '../catalog/guests.ts';
import { findImageById } from '../catalog/images.ts';
import { listRetention } from '../catalog/retention.ts';
import { StasisError, messageOf } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import { storedRetention } from '../guests/retention.ts';
import { deleteProcedure } from '../images/delete.ts';
import { usageOf, type WeighedImage } from '../images/usage.ts';
import type { OperationHandle, Procedure } from '../operations/procedure.ts';
import { formatBytes } from '../units.ts';
import { judge, type Judgement, type Newcomer, type Verdict } from './retention.ts';

export interface PruneArgs {
  /** the images that there is to be room for */
  readonly newcomer?: Newcomer;
}

interface PrunePlan {
  readonly guest: string;
  readonly newcomer: Newcomer | null;
}

export interface Outlook {
  readonly rules: RetentionPlan['rules'];
  readonly usedBytes: number;
  readonly judgement: Judgement<WeighedImage>;
  /** why the quota is not held all the same */
  readonly warning: string | null;
}

/** What the guest's rules say of its images now. */
export async function outlook(host: Host, uuid: string, newcomer?: Newcomer): Promise<Outlook> {
  const rules = storedRetention((await listRetention(host.catalog, [uuid])).get(uuid));
  const { images, usedBytes } = await usageOf(host, uuid);
  const judgement = judge(images, rules, usedBytes, newcomer);
  return { rules, usedBytes, judgement, warning: warningOf(judgement, rules, newcomer) };
}

export function isToGo({ keep }: Verdict<WeighedImage>): boolean {
  return !keep;
}

/** Fails with `over-quota` when there can be no room for the newcomer. */
export function pruneProcedure(host: Host): Procedure<PruneArgs, PrunePlan> {
  return {
    name: 'prune',
    cancellable: true,
    plan: ({ newcomer = null }, subject) => Promise.resolve({ guest: subject.guest ?? '', newcomer }),

    async run({ guest, newcomer }, operation) {
      const tried = new Set<string>();
      // Layers that were merged free less than they held: what is left is looked at again.
      for (let gone = await toGo(host, guest, newcomer, tried); gone.length > 0;) {
        for (const verdict of gone) {
          operation.signal.throwIfAborted();
          tried.add(verdict.image.id);
          await operation.step('delete', () => remove(host, verdict, operation));
        }
        gone = await toGo(host, guest, newcomer, tried);
      }
      await operation.commit(() => Promise.resolve());
    },

    undo: () => Promise.resolve(),
    async finish({ guest, newcomer }, operation) {
      const { warning } = await outlook(host, guest, newcomer ?? undefined);
      if (warning === null) return undefined;
      if (newcomer !== null) return overQuota(await getGuestByUuid(host.catalog, guest), warning);
      await operation.warn(warning);
      await operation.publish({ type: 'guest', action: 'over-quota', message: warning });
      return undefined;
    },
  };
}

export function overQuota({ name }: GuestRecord, warning: string): StasisError {
  return new StasisError('over-quota', `no room for another image of ${name}: ${warning}`, { guest: name });
}

/** Oldest first: interrupted, what is left is the newest. */
async function toGo(
  host: Host,
  guest: string,
  newcomer: Newcomer | null,
  tried: ReadonlySet<string>,
): Promise<Verdict<WeighedImage>[]> {
  const { judgement } = await outlook(host, guest, newcomer ?? undefined);
  return judgement.verdicts.filter((verdict) => isToGo(verdict) && !tried.has(verdict.image.id)).toReversed();
}

/** One that can't be removed doesn't keep the others. */
async function remove(
  host: Host,
  { image: { id, name }, reasons }: Verdict<WeighedImage>,
  operation: OperationHandle,
): Promise<void> {
  try {
    await operation.child('delete', deleteProcedure(host), { name }, name);
    await operation.outcome({ name, outcome: 'done', message: `removed: ${reasons.join(', ')}` });
  } catch (error) {
    const isGone = (await findImageById(host.catalog, id)) === undefined;
    const message = `${isGone ? 'removed, but' : 'not removed:'} ${messageOf(error)}`;
    await operation.outcome({ name, outcome: 'failed', message });
    await operation.warn(`image ${name}: ${message}`);
  }
}

function warningOf(
  { excess, usedBytes, verdicts }: Judgement<WeighedImage>,
  { quotaBytes, quotaImages }: RetentionPlan['rules'],
  newcomer: Newcomer = { images: 0, bytes: 0 },
): string | null {
  if (excess === null) return null;
  const kept = verdicts.filter(({ keep }) => keep).length;
  const parts: string[] = [];
  if (excess.bytes > 0 && quotaBytes !== null)
    parts.push(
      `the ${kept} images that have to stay occupy ${formatBytes(usedBytes)}${newcomer.bytes > 0 ? `, a new one may need ${formatBytes(newcomer.bytes)}` : ''}, the quota is ${formatBytes(quotaBytes)}: ${formatBytes(excess.bytes)} too much`,
    );
  if (excess.images > 0 && quotaImages !== null)
    parts.push(`${kept} images have to stay, the quota is ${quotaImages}`);
  return `${parts.join('; ')}. \`stasis retention GUEST --dry-run\` says why each stays`;
}
