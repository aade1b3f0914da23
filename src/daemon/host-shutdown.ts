/** A shutdown of the host that is announced: the guests begin to end at once, and what stops the host's other units waits for it. */
import { StasisError } from '../errors.ts';
import type { Host } from '../guests/host.ts';
import type { OperationEngine } from '../operations/engine.ts';
import { HOST, makeWay, saveAllProcedure } from '../policy/save-all.ts';
import { onShutdownNotice } from '../systemd/shutdown-notice.ts';

export function endGuestsOnNotice(
  host: Host,
  engine: OperationEngine,
  budgetSeconds: number,
): AsyncDisposable {
  return onShutdownNotice(async () => {
    host.log.info({ budgetSeconds }, 'the host shuts down: guests are ended as their policies say');
    try {
      await makeWay(engine);
      const { id } = await engine.submit(saveAllProcedure(host, engine), {
        kind: 'save-all',
        subject: HOST,
        args: { budgetSeconds },
      });
      await engine.whenEnded(id);
    } catch (error) {
      // The unit of the guests, which is stopped next, asks for the same and tells how it went.
      host.log.warn(
        { err: error },
        `guests were not ended on the notice: ${StasisError.from(error).message}`,
      );
    }
  }, host.log);
}
