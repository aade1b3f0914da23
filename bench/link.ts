/**
 * What commands and the page cost from far away: a link of 50 ms each way, HTTPS with a token, every command as its user runs it.
 * Beside it the same without the way: what is left between the two is round trips. As root. `--rounds 5`
 */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import type { Browser } from 'playwright-core';
import { startChromium } from '../test/support/browser.ts';
import { Lab } from '../test/support/lab.ts';
import { LongLink } from './link/long-link.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });
const ROUNDS = Number(values.rounds);
const ONE_WAY_MS = 50;
const COMMANDS = [
  'guests',
  'show web1',
  'images',
  'info web1 point',
  'host status',
  'save web1 another --live',
  'restore web1 point --yes',
] as const;
const run = promisify(execFile);

await using lab = await Lab.create();
await using link = await LongLink.open(ONE_WAY_MS);
{
  await using _ = await lab.running('web1');
}
await lab.client.createSaveImage('web1', { name: 'point', live: true });
const remote = await lab.client.turnOnRemote({ listen: `${link.address}:0`, names: [link.address] });
const url = `https://${remote.listen}`;
const authority = join(lab.home, 'authority.pem');
await writeFile(authority, remote.authority ?? '');
const { token = '' } = await lab.client.grantCredential({
  ...{ name: 'far', kind: 'token', role: 'admin', expiresInDays: 1 },
});

print(`${ROUNDS} rounds, median (least–most), ms; ${2 * ONE_WAY_MS} ms there and back`);
print('| | far | near | round trips | connections |');
print('| --- | --- | --- | --- | --- |');
for (const command of COMMANDS) await measureCommand(command);
await measurePage();

async function measureCommand(command: string): Promise<void> {
  const [far, near, connections]: [number[], number[], number[]] = [[], [], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = link.connections;
    far.push(await timed(() => stasis(command, ['ip', 'netns', 'exec', link.namespace])));
    connections.push(link.connections - before);
    if (command.startsWith('save')) await lab.client.deleteSaveImage('web1', 'another');
    near.push(await timed(() => stasis(command, [])));
    if (command.startsWith('save')) await lab.client.deleteSaveImage('web1', 'another');
  }
  tell(`\`${command}\``, far, near, connections);
}

/** A whole process. @param within what runs it elsewhere */
async function stasis(command: string, within: readonly string[]): Promise<void> {
  const program = [process.execPath, process.env['STASIS_TEST_PROGRAM'] ?? '', ...command.split(' ')];
  const [file, ...argv] = [...within, ...program, '--connect', url, '--json'];
  await run(file, argv, {
    env: { ...process.env, STASIS_HOME: lab.home, STASIS_TOKEN: token, STASIS_AUTHORITY: authority },
  });
}

async function measurePage(): Promise<void> {
  const wrapper = join(lab.home, 'far-chromium');
  await writeFile(wrapper, `#!/bin/sh\nexec ip netns exec ${link.namespace} /usr/bin/chromium "$@"\n`, {
    mode: 0o700,
  });
  // A certificate that was believed after all costs a second connection: here each is from the start.
  const believing = ['--ignore-certificate-errors'];
  await using farBrowser = await startChromium(wrapper, believing);
  await using nearBrowser = await startChromium(undefined, believing);
  const views = ['the login', 'the guests, first visit', 'the guests, again', 'a guest'] as const;
  const figures = new Map(
    views.map((view) => [view, { far: [] as number[], near: [] as number[], connections: [] as number[] }]),
  );
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [place, browser] of [
      ['far', farBrowser],
      ['near', nearBrowser],
    ] as const) {
      for await (const [view, ms, connections] of visits(browser)) {
        figures.get(view)?.[place].push(ms);
        if (place === 'far') figures.get(view)?.connections.push(connections);
      }
    }
  }
  for (const [view, { far, near, connections }] of figures) tell(view, far, near, connections);
}

/** One after the other, in a browser that knows nothing: until what one came for is there. */
async function* visits(
  browser: Browser,
): AsyncGenerator<
  ['the login' | 'the guests, first visit' | 'the guests, again' | 'a guest', number, number]
> {
  await using context = await browser.newContext();
  let before = link.connections;
  const connections = () => {
    const count = link.connections - before;
    before = link.connections;
    return count;
  };
  const page = await context.newPage();
  const login = await timed(async () => {
    await page.goto(url);
    await page.getByLabel('Token').waitFor();
  });
  yield ['the login', login, connections()];
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('link', { name: 'web1' }).waitFor();
  const cookies = await context.cookies();
  await using fresh = await browser.newContext();
  await fresh.addCookies(cookies);
  const bookmark = await fresh.newPage();
  connections();
  for (const view of ['the guests, first visit', 'the guests, again'] as const) {
    const guests = await timed(async () => {
      await bookmark.goto(url);
      await bookmark.getByRole('link', { name: 'web1' }).waitFor();
    });
    yield [view, guests, connections()];
  }
  const guest = await timed(async () => {
    await bookmark.getByRole('link', { name: 'web1' }).click();
    await bookmark.locator('.image-row').first().waitFor();
  });
  yield ['a guest', guest, connections()];
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const beganMs = performance.now();
  await work();
  return performance.now() - beganMs;
}

function tell(what: string, far: number[], near: number[], connections: number[]): void {
  const trips = (median(far) - median(near)) / (2 * ONE_WAY_MS);
  print(`| ${what} | ${spread(far)} | ${spread(near)} | ${trips.toFixed(1)} | ${median(connections)} |`);
}

function spread(all: readonly number[]): string {
  return `${median(all).toFixed(0)} (${Math.min(...all).toFixed(0)}–${Math.max(...all).toFixed(0)})`;
}

function median(all: readonly number[]): number {
  return all.toSorted((x, y) => x - y)[Math.floor(all.length / 2)] ?? Number.NaN;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
