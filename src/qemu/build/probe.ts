import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import type { QemuBinary } from './binary.ts';
import { ENDING_WITH_US } from '../../ending-with-us.ts';
import { QmpClient } from '../qmp/client.ts';

const WITHOUT_MACHINE = ['-machine', 'none', '-S', '-nodefaults', '-no-user-config', '-display', 'none'];

/**
 * Asks a QEMU without a machine, over its standard input and output: it leaves nothing on the disk, and ends with the
 * question.
 * @param args more arguments for it
 * @throws StasisError `qemu-failed`, `timeout`, or what `ask` throws
 */
export async function probeQemu<T>(
  binary: QemuBinary,
  ask: (qmp: QmpClient) => Promise<T>,
  args: readonly string[] = [],
): Promise<T> {
  // The second of the two: a change of the user ends the bond with us.
  const [starter, ...starting] = [...binary.startedBy, ...ENDING_WITH_US, binary.path];
  const child = spawn(starter, [...starting, ...WITHOUT_MACHINE, '-qmp', 'stdio', ...args], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const exited = once(child, 'exit');
  exited.catch(() => undefined); // a failed start is told where it is awaited, below
  try {
    await using qmp = await QmpClient.over(Duplex.from({ readable: child.stdout, writable: child.stdin }));
    return await ask(qmp);
  } finally {
    child.kill('SIGKILL');
    await exited;
  }
}

type Question<About extends readonly string[], T> = (binary: QemuBinary, ...about: About) => Promise<T>;

/** A question that a build of QEMU is asked once about the same; a failure is not remembered. */
export function askedOnce<T, About extends readonly string[]>(ask: Question<About, T>): Question<About, T> {
  const answers = new Map<string, Promise<T>>();
  return async (binary, ...about) => {
    const question = JSON.stringify([binary.path, binary.modifiedMs, ...about]);
    const answer = answers.get(question) ?? ask(binary, ...about);
    answers.set(question, answer);
    try {
      return await answer;
    } catch (error) {
      answers.delete(question);
      throw error;
    }
  };
}
