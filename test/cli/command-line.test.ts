import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { aGuest, anImage } from '../support/documents.ts';
import { FakeDaemon, json, operation, stream } from '../support/fake-daemon.ts';
import { stasis } from '../support/command.ts';

describe('wrong usage', () => {
  const wrong: string[][] = [
    [],
    ['gusts'],
    ['host'],
    ['start'],
    ['guests', '--nonsense'],
    ['guests', 'surplus'],
    ['policy', 'web1', '--on-boot', 'dance'],
    ['policy', 'web1', '--order', '1.5'],
    ['policy', 'web1', '--fallback', 'hope'],
    ['host', 'save-all', '--budget', 'soon'],
    ['shutdown', 'web1', '--timeout', '0'],
    ['ops', '--cancel'],
    ['guests', '--connect', 'ftp://nowhere'],
  ];
  for (const argv of wrong) {
    test(`"stasis ${argv.join(' ')}" ends with 2, and says why`, async () => {
      const [asText, asJson] = await Promise.all([stasis(argv), stasis([...argv, '--json'])]);
      assert.equal(asText.status, 2);
      assert.notEqual(asText.stderr, '');
      assert.equal(asJson.status, 2);
      assert.equal(asJson.stdout, '');
      assert.equal(JSON.parse(asJson.stderr).error.code, 'invalid-request');
    });
  }

  test('suggests what was meant', async () => {
    assert.match((await stasis(['gusts'])).stderr, /Did you mean guests\?/);
  });
});

describe('help', () => {
  test('lists every command of the contract, and is no failure', async () => {
    const { status, stdout } = await stasis(['--help']);
    assert.equal(status, 0);
    const commands =
      'define import undefine guests show start shutdown stop pause resume reset console save images info restore delete policy host ops events doctor daemon completion';
    for (const command of commands.split(' ')) assert.match(stdout, new RegExp(`^  ${command} `, 'm'));
  });

  test('of a command has an example', async () => {
    const { status, stdout } = await stasis(['restore', '--help']);
    assert.equal(status, 0);
    assert.match(stdout, /\$ stasis restore web1 before-update\n/);
  });
});

describe('a command', () => {
  test('without a daemon where it was told to look ends with 1', async () => {
    const { status, stderr } = await stasis(['guests', '--json', '--connect', 'unix:/nonexistent/s.sock']);
    assert.equal(status, 1);
    assert.equal(JSON.parse(stderr).error.code, 'daemon-unreachable');
  });

  test('takes the options of all commands before and after its name', async () => {
    await using daemon = await FakeDaemon.start([json(200, [aGuest()])]);
    const connect = ['--connect', `unix:${daemon.socketPath}`];
    const runs = [
      ['--json', ...connect, 'guests'],
      ['guests', '--json', ...connect],
      [...connect, 'guests', '--json'],
    ];
    for (const argv of runs) assert.deepEqual(JSON.parse((await stasis(argv)).stdout), [aGuest()]);
  });

  test('ends with the status that the error stands for', async () => {
    const error = {
      code: 'guest-not-found',
      message: 'there is no guest x',
      details: { hint: 'stasis guests' },
    };
    await using daemon = await FakeDaemon.start([json(404, { error })]);
    const env = { STASIS_CONNECT: `unix:${daemon.socketPath}` };
    const asText = await stasis(['show', 'x'], { env });
    assert.deepEqual(asText, {
      status: 3,
      stdout: '',
      stderr: 'stasis: there is no guest x\n  hint: stasis guests\n',
    });
    const asJson = await stasis(['show', 'x', '--json'], { env });
    assert.deepEqual(
      { status: asJson.status, error: JSON.parse(asJson.stderr) },
      { status: 3, error: { error } },
    );
  });
});

describe('a save', () => {
  const saved = operation({ state: 'done', warnings: ['no agent'], result: { image: anImage() } });

  test('is summed up in a line, its warnings on stderr', async () => {
    await using daemon = await FakeDaemon.start([stream('operation', [operation(), saved])]);
    const { status, stdout, stderr } = await stasis(
      ['save', 'web1', 'before-update', '--live', '--description', 'x y'],
      {
        env: { STASIS_CONNECT: `unix:${daemon.socketPath}` },
      },
    );
    assert.equal(
      stdout,
      'saved web1 / before-update: 1.0 GiB memory, 0 disks, paused 13 ms, 312 MiB stored, took 1.4 s\n',
    );
    assert.equal(stderr, 'stasis: warning: no agent\n');
    assert.equal(status, 0);
    assert.deepEqual(daemon.received[0]?.body, { name: 'before-update', live: true, description: 'x y' });
  });

  test('prints the image as JSON', async () => {
    await using daemon = await FakeDaemon.start([stream('operation', [saved])]);
    const { stdout, stderr } = await stasis(['save', 'web1', '--json'], {
      env: { STASIS_CONNECT: `unix:${daemon.socketPath}` },
    });
    assert.deepEqual(JSON.parse(stdout), anImage());
    assert.equal(stderr, '');
  });

  test("that isn't waited for prints the id", async () => {
    await using daemon = await FakeDaemon.start([json(202, operation())]);
    const { stdout } = await stasis(['save', 'web1', '--no-wait'], {
      env: { STASIS_CONNECT: `unix:${daemon.socketPath}` },
    });
    assert.equal(stdout, 'op1\n');
  });

  test('is cancelled by the first ^C and left by the second', async () => {
    const running = operation({ warnings: ['it is under way'] });
    let interrupt: (() => void) | undefined;
    await using daemon = await FakeDaemon.start([
      (reply) => {
        reply.writeHead(200, { 'content-type': 'text/event-stream' });
        reply.write(`event: operation\ndata: ${JSON.stringify(running)}\n\n`);
      },
      (reply, request) => {
        json(202, running)(reply, request);
        interrupt?.();
      },
    ]);
    const { status, stderr } = await stasis(['save', 'web1', '--connect', `unix:${daemon.socketPath}`], {
      meanwhile: (child) => {
        interrupt = () => void child.kill('SIGINT');
        let heard = '';
        let isFirst = true;
        child.stderr?.on('data', (bytes: Buffer) => {
          heard += bytes.toString();
          if (isFirst && heard.includes('it is under way')) interrupt?.();
          isFirst &&= !heard.includes('it is under way');
        });
      },
    });
    assert.equal(status, 1);
    assert.match(stderr, /left while save of web1 goes on in the daemon\n {2}hint: stasis ops op1\n$/);
    assert.deepEqual([daemon.received[1]?.method, daemon.received[1]?.url], ['DELETE', '/v1/operations/op1']);
  });
});

describe('restore', () => {
  const requests: [argv: string[], body: object][] = [
    [[], {}],
    [
      ['img', '--delete', '--paused', '--eager'],
      { name: 'img', delete: true, paused: true, method: 'eager' },
    ],
    [['img', '--as', 'web2'], { name: 'img', asNewGuest: 'web2' }],
    [['img', '--save-current'], { name: 'img', saveCurrent: true }],
    [['img', '--save-current', 'now'], { name: 'img', saveCurrent: 'now' }],
    [['--save-current=now', 'img'], { name: 'img', saveCurrent: 'now' }],
  ];
  for (const [argv, body] of requests) {
    test(`"restore web1 ${argv.join(' ')}" asks the daemon for ${JSON.stringify(body)}`, async () => {
      const restored = operation({ kind: 'restore', state: 'done', result: { guest: aGuest() } });
      await using daemon = await FakeDaemon.start([stream('operation', [restored])]);
      const { status } = await stasis(['restore', 'web1', ...argv, '--connect', `unix:${daemon.socketPath}`]);
      assert.equal(status, 0);
      assert.deepEqual(
        daemon.received.map((request) => request.body),
        [body],
      );
    });
  }
});

describe('host save-all', () => {
  test('with --dry-run shows the plan, with the budget in seconds', async () => {
    const plan = {
      budgetSeconds: 90,
      bytesPerSecond: 240 * 1024 ** 2,
      basis: 'assumed',
      parallel: 2,
      guests: [
        {
          guest: 'web1',
          wanted: 'save',
          action: 'save',
          bytes: 1024 ** 3,
          endsAfterSeconds: 4.6,
          why: 'its policy',
        },
        {
          guest: 'big',
          wanted: 'save',
          action: 'shutdown',
          bytes: 0,
          endsAfterSeconds: null,
          why: 'no time',
        },
      ],
    };
    await using daemon = await FakeDaemon.start([json(200, plan)]);
    const env = { STASIS_CONNECT: `unix:${daemon.socketPath}` };
    const { stdout, status } = await stasis(['host', 'save-all', '--budget', '1.5m', '--dry-run'], { env });
    assert.equal(status, 0);
    assert.equal(daemon.received[0]?.url, '/v1/host/save-all/plan?budgetSeconds=90');
    assert.match(stdout, /web1 +save +save +1\.0 GiB +4\.6 s +its policy/);
    assert.match(stdout, /big +save +shutdown +no time/);
  });

  test('that did not end each guest as it should says so, guest by guest, and ends with 1', async () => {
    const error = {
      code: 'capture-failed',
      message: 'not ended as their policies say:\nbig: shut down: no time',
      details: { guests: [] },
    } as const;
    const failed = operation({ kind: 'save-all', guest: '(host)', state: 'failed', error });
    await using daemon = await FakeDaemon.start([stream('operation', [failed])]);
    const env = { STASIS_CONNECT: `unix:${daemon.socketPath}` };
    const { stderr, status } = await stasis(['host', 'save-all'], { env });
    assert.equal(status, 1);
    assert.match(stderr, /big: shut down: no time/);
    assert.deepEqual(daemon.received[0]?.body, {});
  });
});

describe('define', () => {
  test('reads stdin, whose paths are relative to the working directory', async () => {
    const defined = operation({ kind: 'define', state: 'done', result: { guest: aGuest() } });
    await using daemon = await FakeDaemon.start([stream('operation', [defined])]);
    await stasis(['define', '-', '--connect', `unix:${daemon.socketPath}`], { stdin: 'name: web1\n' });
    assert.deepEqual(daemon.received[0]?.body, { definition: { name: 'web1' }, directory: process.cwd() });
  });

  test('of what is no YAML ends with 2, of libvirt XML with 4', async () => {
    const connect = ['--connect', 'unix:/nonexistent/s.sock'];
    assert.equal((await stasis(['define', '-', ...connect], { stdin: 'a: [' })).status, 2);
    assert.equal((await stasis(['define', '-', ...connect], { stdin: '<domain/>' })).status, 4);
  });
});

describe('events', () => {
  test('that are followed are one document per line', async () => {
    const event = (id: number) => ({ id, at: '2026-06-15T12:00:00Z', message: `event ${id}` });
    await using daemon = await FakeDaemon.start([
      json(200, [event(2), event(1)]),
      (reply) => {
        reply.writeHead(200, { 'content-type': 'text/event-stream' });
        reply.write(`event: event\ndata: ${JSON.stringify(event(3))}\n\n`);
      },
    ]);
    const { stdout } = await stasis(
      ['events', '--follow', '--json', '--connect', `unix:${daemon.socketPath}`],
      {
        meanwhile: (child) => {
          let heard = '';
          child.stdout?.on('data', (bytes: Buffer) => {
            heard += bytes.toString();
            if (heard.includes('event 3')) child.kill('SIGINT');
          });
        },
      },
    );
    const ids = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).id);
    assert.deepEqual(ids, [1, 2, 3]);
    assert.equal(daemon.received[1]?.url, '/v1/events?since=2');
  });
});

describe('completion', () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    test(`has a script for ${shell}`, async () => {
      const { status, stdout } = await stasis(['completion', shell]);
      assert.equal(status, 0);
      assert.match(stdout, /complete -- /);
    });
  }

  test('knows commands and options without a daemon, and starts none', async () => {
    const env = { STASIS_CONNECT: 'unix:/nonexistent/s.sock' };
    const { stdout } = await stasis(['complete', '--', 'restor'], { env });
    assert.match(stdout, /^restore\t/m);
    assert.match(
      (await stasis(['complete', '--', 'restore', 'web1', '--save'], { env })).stdout,
      /^--save-current\t/m,
    );
    assert.equal((await stasis(['complete', '--', 'show', ''], { env })).status, 0);
  });

  test('knows the names that the daemon knows', async () => {
    await using daemon = await FakeDaemon.start([
      (reply, request) => json(200, request.url === '/v1/guests' ? [aGuest()] : [anImage()])(reply, request),
    ]);
    const env = { STASIS_CONNECT: `unix:${daemon.socketPath}` };
    const complete = async () => (await stasis(['complete', '--', 'restore', 'web1', 'bef'], { env })).stdout;
    let completed = await complete();
    // On a busy host half a second may be too little, and then nothing is offered.
    for (let tries = 1; tries < 20 && !completed.includes('before-update'); tries += 1)
      completed = await complete();
    assert.match(completed, /^before-update\t/m);
  });
});
