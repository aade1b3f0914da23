/** Changing a guest's schedules, and which of its images stay. Nothing is saved or removed by that alone. */
import type { Retention, RetentionChange, ScheduleChange, ScheduleRequest } from '../api/schedules.ts';
import { listRetention, setRetention } from '../catalog/retention.ts';
import {
  deleteSchedule,
  findSchedule,
  insertSchedule,
  updateSchedule,
  type ScheduleRecord,
} from '../catalog/schedules.ts';
import { StasisError } from '../errors.ts';
import { storedRetention, whyNotRetention } from '../guests/retention.ts';
import {
  newSchedule,
  specOf,
  storedSpec,
  whyNotSchedule,
  withChange,
  type ScheduleSpec,
} from '../guests/schedules.ts';
import type { Host } from '../guests/host.ts';
import type { Procedure } from '../operations/procedure.ts';

export type ScheduleWish =
  | { readonly what: 'add'; readonly schedule: ScheduleRequest }
  | { readonly what: 'change'; readonly name: string; readonly change: ScheduleChange }
  | { readonly what: 'remove'; readonly name: string };

interface SchedulePlan {
  readonly wish: 'add' | 'change' | 'remove';
  /** as it is to be; null when it goes */
  readonly schedule: ScheduleRecord | null;
  readonly name: string;
  readonly guest: string;
}

export function scheduleProcedure({ catalog }: Host): Procedure<ScheduleWish, SchedulePlan> {
  return {
    name: 'schedule',
    cancellable: false,

    async plan(wish, { guest: uuid, guestName }) {
      const guest = uuid ?? '';
      const name = wish.what === 'add' ? wish.schedule.name : wish.name;
      const there = await findSchedule(catalog, guest, name);
      if (wish.what === 'add') {
        if (there !== undefined) throw alreadyThere(guestName, name);
        const { paused = false } = wish.schedule;
        const schedule = newSchedule(guest, name, checked(name, specOf(wish.schedule)), paused);
        return { wish: 'add', schedule, name, guest };
      }
      if (there === undefined) throw notThere(guestName, name);
      const schedule = wish.what === 'remove' ? null : changed(there, wish.change);
      return { wish: wish.what, schedule, name, guest };
    },

    async run({ wish, schedule, name, guest }, operation) {
      await operation.commit(async (transaction) => {
        if (schedule === null) await deleteSchedule(transaction, guest, name);
        else if (wish === 'add') await insertSchedule(transaction, schedule);
        else await updateSchedule(transaction, schedule, schedule);
      });
      const message = `schedule ${name} of ${operation.guestName} ${wish === 'add' ? 'added' : `${wish}d`}`;
      await operation.publish({ type: 'guest', action: 'schedule', message });
    },

    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

export function retentionProcedure({
  catalog,
}: Host): Procedure<RetentionChange, { readonly guest: string; readonly rules: Retention }> {
  return {
    name: 'retention',
    cancellable: false,

    async plan(change, subject) {
      const guest = subject.guest ?? '';
      const rules = { ...storedRetention((await listRetention(catalog, [guest])).get(guest)), ...change };
      const whyNot = whyNotRetention(rules);
      if (whyNot !== undefined)
        throw new StasisError('invalid-request', `the rules are not valid: ${whyNot}`);
      return { guest, rules };
    },

    run: ({ guest, rules }, operation) =>
      operation.commit((transaction) => setRetention(transaction, guest, JSON.stringify(rules))),
    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}

/** What was due while it was paused, or by what it was before, is not made up for. */
function changed(there: ScheduleRecord, change: ScheduleChange): ScheduleRecord {
  const before = storedSpec(there);
  const spec = checked(there.name, withChange(before, change));
  const paused = change.paused ?? there.paused === 1;
  const isAnother =
    spec.cron !== before.cron || spec.timeZone !== before.timeZone || (there.paused === 1 && !paused);
  return {
    ...newSchedule(there.guest, there.name, spec, paused),
    createdAt: there.createdAt,
    ...(isAnother ? {} : { decidedUntil: there.decidedUntil }),
  };
}

/** @throws StasisError `invalid-request` */
function checked(name: string, spec: ScheduleSpec): ScheduleSpec {
  const whyNot = whyNotSchedule(name, spec, Date.now());
  if (whyNot === undefined) return spec;
  throw new StasisError('invalid-request', `schedule ${name} is not valid: ${whyNot}`);
}

function alreadyThere(guest: string, name: string): StasisError {
  return new StasisError(
    'schedule-exists',
    `guest ${guest} already has a schedule "${name}"; \`stasis schedule set ${guest} ${name}\` changes it`,
  );
}

function notThere(guest: string, name: string): StasisError {
  return new StasisError(
    'schedule-not-found',
    `guest ${guest} has no schedule "${name}"; \`stasis schedule ${guest}\` lists its schedules`,
  );
}
