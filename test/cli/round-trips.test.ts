/**
 * How many requests each command costs: one. A link with a long way makes each further one felt (`npm run bench:link`). Every
 * command is in the table, so that a new one has to be thought about.
 */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Command } from 'commander';
import { buildProgramForCompletion } from '../../src/cli/program.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { CountingProxy } from '../support/counting-proxy.ts';
import { Lab } from '../support/lab.ts';

interface Row {
  readonly command: string;
  /** more than one, with the reason */
  readonly requests?: readonly [count: number, reason: string];
  /** what it is told on this guest: also a refusal is one request */
  readonly refused?: ErrorCode;
}

/** In this order, on a guest without an operating system. */
const COMMANDS: readonly Row[] = [
  { command: 'define FILE' },
  { command: 'guests' },
  { command: 'show web1' },
  { command: 'label web1' },
  { command: 'label web1 web' },
  { command: 'policy web1' },
  { command: 'policy web1 --order 5' },
  { command: 'qemu web1' },
  { command: 'qemu web1 --usual' },
  { command: 'start web1' },
  { command: 'pause web1' },
  { command: 'resume web1' },
  { command: 'reset web1' },
  { command: 'shutdown web1 --timeout 0.1', refused: 'timeout' },
  { command: 'save web1 point --live --dry-run' },
  { command: 'save web1 point --live' },
  { command: 'save web1 --live' },
  { command: 'images' },
  { command: 'images web1' },
  { command: 'images --tree' },
  { command: 'images web1 --tree' },
  { command: 'info web1 point' },
  { command: 'verify web1' },
  { command: 'verify web1 point' },
  { command: 'verify web1 --all', requests: [3, 'the list, and each of two images'] },
  { command: 'restore web1 point --yes' },
  { command: 'protect web1 point' },
  { command: 'unprotect web1 point' },
  { command: 'schedule' },
  { command: 'schedule add web1 nightly --cron @daily' },
  { command: 'schedule set web1 nightly --jitter 5m' },
  { command: 'schedule pause web1 nightly' },
  { command: 'schedule resume web1 nightly' },
  { command: 'schedule remove web1 nightly' },
  { command: 'retention' },
  { command: 'retention web1' },
  { command: 'retention web1 --keep-last 5' },
  { command: 'retention web1 --dry-run' },
  { command: 'retention web1 --apply' },
  { command: 'disk tree web1' },
  { command: 'disk compact web1' },
  {
    command: 'export web1 point OUT',
    requests: [2, 'to have it served, and that the command has come to it'],
  },
  { command: 'delete web1 point' },
  { command: 'host status' },
  { command: 'host check' },
  { command: 'host save-all --dry-run' },
  { command: 'host save-all' },
  { command: 'host restore-all' },
  { command: 'ops' },
  { command: 'ops OPERATION' },
  { command: 'ops OPERATION --cancel', refused: 'invalid-state' },
  { command: 'events' },
  { command: 'audit' },
  { command: 'audit --verify' },
  { command: 'metrics' },
  { command: 'catalog backup' },
  { command: 'doctor' },
  { command: 'remote setup --listen 127.0.0.1:0 --name localhost' },
  { command: 'remote status' },
  { command: 'remote grant alice --role viewer' },
  { command: 'remote credentials' },
  { command: 'remote revoke alice' },
  { command: 'remote off' },
  { command: 'stop web1' },
  { command: 'undefine web1 --delete-images' },
];

const NOT_COUNTED: Readonly<Record<string, string>> = {
  console: 'one channel, for as long as one looks at it',
  mount: 'as `export`, until ^C',
  'import libvirt': 'one for each domain',
  web: 'a page on this host',
  daemon: 'the other side',
  'catalog rebuild': 'while no daemon runs',
  'host install': 'nothing is asked of a daemon',
  'host uninstall': 'nothing is asked of a daemon',
  login: 'whom to believe, and then one to see that it works',
  logout: 'nothing is asked of a daemon',
};

describe('each command is one request', { concurrency: 1 }, () => {
  let lab: Lab;
  let proxy: CountingProxy;
  let runner: ChildProcess;
  before(async () => {
    lab = await Lab.create();
    const { path, format } = await lab.makeDisk('web1', 8);
    const kernel = join(import.meta.dirname, '../../.cache/test-guest/bare');
    const disks = [{ name: 'disk0', path, format }];
    const definition = { name: 'web1', memory: '16MiB', accelerator: 'tcg', boot: { kernel }, disks };
    await writeFile(join(lab.home, 'web1.json'), JSON.stringify(definition));
    proxy = await CountingProxy.open(join(lab.home, 'counted.sock'), lab.paths.socket);
    runner = fork(join(import.meta.dirname, '../support/command-runner.ts'), {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
  });
  after(async () => {
    runner.disconnect();
    await proxy[Symbol.asyncDispose]();
    await lab[Symbol.asyncDispose]();
  });

  for (const { command, requests: [expected] = [1], refused } of COMMANDS) {
    test(command, async () => {
      const latest = command.includes('OPERATION') ? (await lab.client.listOperations())[0]?.id : '';
      const argv = command
        .replace('FILE', join(lab.home, 'web1.json'))
        .replace('OUT', join(lab.home, 'out.qcow2'))
        .replace('OPERATION', latest ?? '')
        .split(' ');
      proxy.requests.length = 0;
      runner.send([...argv, '--json', '--connect', `unix:${lab.home}/counted.sock`]);
      const [told] = await once(runner, 'message');
      assert.equal(told.code, refused);
      assert.equal(proxy.requests.length, expected, proxy.requests.join('\n'));
    });
  }

  test('no command is forgotten', async () => {
    const listed = [...COMMANDS.map(({ command }) => command), ...Object.keys(NOT_COUNTED)];
    const missing = commandsOf(await buildProgramForCompletion()).filter(
      (name) => !listed.some((one) => one === name || one.startsWith(`${name} `)),
    );
    assert.deepEqual(missing, []);
  });
});

function commandsOf(command: Command, prefix = ''): string[] {
  return command.commands.flatMap((one) => {
    const name = `${prefix}${one.name()}`;
    return one.commands.length > 0 ? commandsOf(one, `${name} `) : [name];
  });
}
