/** A guest's labels: by them people are let see some guests and not others. */
import { getGuestByUuid, setDefinition } from '../catalog/guests.ts';
import type { Procedure } from '../operations/procedure.ts';
import { storedDefinition } from './definition.ts';

interface Labels {
  readonly labels: readonly string[];
}

/** Gives a guest these labels in place of those that it has. */
export function labelsProcedure(): Procedure<Labels, Labels & { readonly guest: string }> {
  return {
    name: 'labels',
    cancellable: false,
    plan: ({ labels }, subject) =>
      Promise.resolve({ guest: subject.guest ?? '', labels: [...new Set(labels)] }),
    run: ({ guest, labels }, operation) =>
      operation.commit(async (transaction) => {
        const definition = storedDefinition(await getGuestByUuid(transaction, guest));
        await setDefinition(transaction, guest, JSON.stringify({ ...definition, labels }));
      }),
    undo: () => Promise.resolve(),
    finish: () => Promise.resolve(),
  };
}
