/**
 * How the web page carries 200 guests and 10,000 images: first contentful paint, what the page asks for, and how long an
 * interaction takes to the next frame that shows it. In Chromium without a screen, on the same machine as the daemon.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Browser, Page } from 'playwright-core';
import { Gateway } from '../src/gateway/gateway.ts';
import { startChromium, until } from '../test/support/browser.ts';
import { Lab } from '../test/support/lab.ts';
import { crowd } from './crowd.ts';

const GUESTS = 200;
const IMAGES = 10_000;
const ROUNDS = 7;
const PAINT_LIMIT_MS = 1000;
const INTERACTION_LIMIT_MS = 100;

const home = await mkdtemp(join(tmpdir(), 'stasis-web-'));
try {
  await crowd(home, GUESTS, IMAGES);
  await using lab = await Lab.open(home);
  await using gateway = await Gateway.open(lab.paths.socket, 0);
  await using browser = await startChromium();
  print(
    `${GUESTS} guests, ${IMAGES} images; ${ROUNDS} rounds: median (least–most), limit; load ${loadavg()[0]?.toFixed(1)} on ${availableParallelism()} cores`,
  );
  await paints(browser, gateway, 'guests', '', 'table.guests tbody tr');
  await paints(browser, gateway, 'a guest', '#/guests/guest7', '.image-row');
  await interactions(browser, gateway);
} finally {
  await rm(home, { recursive: true, force: true });
}
await sizes();

/** Each round in a browser of its own, with nothing cached, from the link to the list that can be used. */
async function paints(
  chromium: Browser,
  gateway: Gateway,
  what: string,
  fragment: string,
  ready: string,
): Promise<void> {
  const paint: number[] = [];
  const whole: number[] = [];
  let requests: string[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await using context = await chromium.newContext();
    const page = await context.newPage();
    const link = new URL(gateway.link());
    if (fragment !== '') {
      // A session first; then the page comes anew, as by a bookmark.
      await page.goto(link.href);
      await page.locator('table.guests').waitFor();
      await page.goto('about:blank');
      link.hash = fragment;
    }
    requests = [];
    page.on('request', (request) => {
      if (request.url().includes('/v1/')) requests.push(request.url().replace(/^.*\/v1\//, '/v1/'));
    });
    await page.goto(link.href);
    await page.locator(ready).first().waitFor();
    await until(page, "performance.getEntriesByName('first-contentful-paint').length > 0");
    paint.push(
      Number(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")),
    );
    whole.push(Number(await page.evaluate('performance.now()')));
  }
  report(`${what}: first contentful paint`, paint, PAINT_LIMIT_MS);
  report(`${what}: everything there`, whole, PAINT_LIMIT_MS);
  print(`  ${what}: asked for ${requests.join(', ')}`);
}

async function interactions(chromium: Browser, gateway: Gateway): Promise<void> {
  await using context = await chromium.newContext({ viewport: { width: 1200, height: 800 } });
  const page = await context.newPage();
  await page.goto(gateway.link());
  await page.locator('table.guests tbody tr').first().waitFor();
  const rows = 'document.querySelectorAll("table.guests tbody tr").length';
  // More than the window shows; the rest follows in the frames after.
  const VISIBLE = 20;
  const found: Record<string, number[]> = {};
  const measure = async (what: string, act: string, done: string) => {
    (found[what] ??= []).push(await frameAfter(page, act, done));
  };
  const type = (text: string) =>
    `const input = document.querySelector('input[type=search]'); input.value = '${text}'; input.dispatchEvent(new Event('input', { bubbles: true }))`;
  const heading = (n: number) => `document.querySelector('thead th:nth-child(${n}) button').click()`;
  for (let round = 0; round < ROUNDS; round += 1) {
    await measure('search', type('guest19'), `${rows} < 20`);
    await measure('search cleared', type(''), `${rows} >= ${VISIBLE}`);
    await measure('sort by images', heading(4), "document.querySelector('thead th:nth-child(4)').ariaSort");
    await measure('sort by name', heading(1), "document.querySelector('thead th:nth-child(1)').ariaSort");
    await measure(
      'a guest, its 50 images asked for',
      `location.hash = '#/guests/guest${round + 20}'`,
      `document.querySelectorAll('.image-row').length === ${IMAGES / GUESTS}`,
    );
    await measure(
      'an image chosen',
      `document.querySelectorAll('.image-row')[10].click()`,
      "document.querySelector('.details .fields')",
    );
    await measure(
      'the restore dialog',
      "document.querySelector('.details .primary').click()",
      "document.querySelector('dialog[open]')",
    );
    await page.keyboard.press('Escape');
    await measure(
      'history',
      "document.querySelectorAll('.tabs a')[3].click()",
      "document.querySelector('.bar')",
    );
    await measure('back to all guests', "location.hash = '#/'", `${rows} >= ${VISIBLE}`);
  }
  for (const [what, values] of Object.entries(found)) report(what, values, INTERACTION_LIMIT_MS);
}

/** From what a person does to the end of the first frame that shows it, in milliseconds. */
async function frameAfter(page: Page, act: string, done: string): Promise<number> {
  return Number(
    await page.evaluate(`new Promise((resolve) => {
      const begin = performance.now();
      { ${act} }
      const look = () => {
        if (!(${done})) return requestAnimationFrame(look);
        // A message is handled after the frame that was begun is painted.
        const painted = new MessageChannel();
        painted.port1.onmessage = () => resolve(performance.now() - begin);
        requestAnimationFrame(() => painted.port2.postMessage(0));
      };
      look();
    })`),
  );
}

function report(what: string, values: readonly number[], limitMs: number): void {
  const sorted = values.toSorted((a, b) => a - b);
  const [least = 0, most = 0] = [sorted[0], sorted.at(-1)];
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const verdict = median <= limitMs ? '' : '  NOT REACHED';
  print(
    `  ${what}: ${median.toFixed(0)} ms (${least.toFixed(0)}–${most.toFixed(0)}), ≤ ${limitMs}${verdict}`,
  );
}

/** What goes over the wire if it were compressed: the files are served as they are, from this host to itself. */
async function sizes(): Promise<void> {
  const assets = join(import.meta.dirname, '../dist/web/assets');
  let first = 0;
  let later = 0;
  for (const name of await readdir(assets)) {
    const gzipped = gzipSync(await readFile(join(assets, name))).length;
    if (/^(console|screen)-view/.test(name)) later += gzipped;
    else first += gzipped;
  }
  print(`bundle, gzipped: ${kib(first)} KiB, and ${kib(later)} KiB when a screen or a console is opened`);
}

function kib(bytes: number): string {
  return (bytes / 1024).toFixed(0);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
