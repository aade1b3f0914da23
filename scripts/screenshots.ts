/**
 * Makes the pictures in docs/web again: the built page on real guests, in Chromium without a screen. Run it after a change
 * of the page that is worth showing.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { Visit } from '../test/support/browser.ts';
import { Lab } from '../test/support/lab.ts';

const OUT = join(import.meta.dirname, '../docs/web');

await mkdir(OUT, { recursive: true });
await using lab = await Lab.create();
await prepare();
await using visit = await Visit.open(lab, { viewport: { width: 1120, height: 700 } });
const { page } = visit;

await page.getByRole('row', { name: /web1/ }).waitFor();
await visit.go('#/guests/web1');
await page.getByRole('button', { name: /^before-update/ }).click();
await page.locator('.screen-shot').waitFor();
await take('images');

await page.emulateMedia({ colorScheme: 'dark' });
await page.getByRole('button', { name: 'Restore…' }).click();
await page.getByText('nothing is lost').waitFor();
await take('restore-dark');
await page.keyboard.press('Escape');

await page.getByRole('button', { name: 'Close' }).click();
await page.emulateMedia({ colorScheme: 'light' });
await page.setViewportSize({ width: 390, height: 700 });
await take('phone');

const { listen } = await lab.client.turnOnRemote({ listen: '127.0.0.1:0', names: ['localhost'] });
await using elsewhere = await visit.browser.newContext({ ignoreHTTPSErrors: true });
const door = await elsewhere.newPage();
await door.setViewportSize({ width: 1120, height: 520 });
await door.goto(`https://localhost:${listen?.split(':').at(-1)}`);
await door.getByLabel('Token').waitFor();
await take('login', door);

/** A guest with a history worth looking at, and some company. */
async function prepare(): Promise<void> {
  await using _ = await lab.running('web1', { extra: { graphics: 'vnc', memory: '256MiB' } });
  for (const name of ['db1', 'mail', 'build']) await lab.define(name, { disks: 1 });
  const save = (name: string, description: string) =>
    lab.client.createSaveImage('web1', { name, description, live: true });
  await save('installed', 'as the installer left it');
  await save('configured', 'certificates, firewall');
  await save('before-update', 'nightly, by cron');
  await save('update-tried', 'the new kernel hung');
  await lab.client.restoreSaveImage('web1', 'before-update');
  await save('tuned', 'larger buffers');
  await lab.client.restoreSaveImage('web1', 'configured');
  await save('without-cache', 'to compare with');
  await lab.client.restoreSaveImage('web1', 'tuned');
}

async function take(name: string, from: Page = page): Promise<void> {
  await from.evaluate('document.activeElement?.blur()');
  await from.screenshot({ path: join(OUT, `${name}.png`), animations: 'disabled' });
}
