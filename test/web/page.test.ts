/** The page in Chromium, against a real daemon and real guests. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import axe from 'axe-core';
import type { Page } from 'playwright-core';
import { until, Visit } from '../support/browser.ts';
import { Lab } from '../support/lab.ts';
import type { Witness } from '../support/witness.ts';

describe('the web page', () => {
  let lab: Lab;
  let visit: Visit;
  let page: Page;
  let witness: Witness;
  before(async () => {
    lab = await Lab.create();
    witness = await lab.running('web1', { system: 'bare', extra: { graphics: 'vnc' } });
    visit = await Visit.open(lab);
    page = visit.page;
  });
  after(async () => {
    await visit[Symbol.asyncDispose]();
    await lab[Symbol.asyncDispose]();
  });

  const dialog = () => page.getByRole('dialog');
  const notice = (text: string | RegExp) => page.getByRole('log').getByText(text).waitFor();
  const row = (name: string) => page.getByRole('button', { name: new RegExp(`^${name}`) });

  test('lists guests, and hears of what others do to them', async () => {
    const listed = page.getByRole('row', { name: /web1/ });
    await listed.getByText('running').waitFor();
    assert.equal(await page.evaluate('location.hash'), '', 'the secret is out of the address');
    await lab.client.pause('web1');
    await listed.getByText('paused').waitFor();
    await lab.client.resume('web1');
    await lab.define('web2', { system: 'bare', disks: 1 });
    await page.getByRole('row', { name: /web2/ }).getByText('stopped').waitFor();
    await page.getByRole('searchbox').fill('web2');
    await listed.waitFor({ state: 'detached' });
    await page.getByRole('searchbox').fill('');
  });

  test('saves a guest that runs on, with the pause predicted, and shows what it was', async () => {
    await page.getByRole('link', { name: 'web1' }).click();
    await page.getByRole('heading', { name: 'No images yet' }).waitFor();
    await witness.fill(1, 8);
    await page.getByRole('button', { name: 'Live save…' }).click();
    await dialog()
      .getByText(/It will stand still for about [\d.]+ m?s/)
      .waitFor();
    await dialog().getByLabel('Name').fill('first');
    await dialog().getByLabel('Description').fill('for the test');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await notice('web1 is saved as first');
    const [image] = await lab.client.listSaveImages('web1');
    assert.equal(image?.name, 'first');
    assert.equal(image.live, true);
    assert.equal(image.description, 'for the test');
    await row('first').click();
    await page.getByText(/(precopy|background), live/).waitFor();
    const picture = page.getByRole('img', { name: /screen of web1/ });
    await picture.waitFor();
    await until(page, "document.querySelector('.screen-shot').naturalWidth >= 640");
  });

  test('a refusal is told in the dialog, which stays', async () => {
    await page.getByRole('button', { name: 'Live save…' }).click();
    await dialog().getByLabel('Name').fill('first');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await dialog().getByRole('alert').getByText('first').waitFor();
    await page.keyboard.press('Escape');
    await dialog().waitFor({ state: 'detached' });
  });

  test('restores it, keeping the present, while one looks on', async () => {
    const { checksum } = await witness.checksum();
    await witness.fill(2, 8);
    await witness.close();
    await page.getByRole('button', { name: 'Restore…' }).click();
    await dialog().getByText('nothing is lost').waitFor();
    await dialog().getByLabel('Save the present first').uncheck();
    await dialog()
      .getByText(/Its present is lost: .* since first/)
      .waitFor();
    await dialog().getByLabel('Save the present first').check();
    await lab.failAt('restore/load:before=halt');
    await dialog().getByRole('button', { name: 'Restore' }).click();
    await lab.daemonHalted();
    await lab.failAt();
    // What goes on is seen while it goes on.
    await page
      .locator('.under-way', { hasText: /restore first/ })
      .first()
      .waitFor();
    process.kill(lab.daemonPid, 'SIGCONT');
    await notice('web1 is back at first');

    witness = await lab.witness('web1');
    assert.deepEqual(await witness.checksum().then((found) => [found.checksum, found.errors]), [checksum, 0]);
    await page.locator('.image-row', { hasText: 'before-restore-' }).waitFor();
    await page.getByText('from first').first().waitFor();
    await page.locator('.image-row', { hasText: 'first' }).locator('.tag.now').waitFor();
  });

  test('types into the serial console and reads it, also of the machine that was restored', async () => {
    await page.getByRole('link', { name: 'Console' }).click();
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();
    const shown = (text: string) => page.locator('.xterm-rows', { hasText: text });
    await page.keyboard.type('ping 4711');
    await page.keyboard.press('Control+j');
    await shown('4711}').waitFor();
    await lab.client.restoreSaveImage('web1', 'first');
    await shown('4711').waitFor({ state: 'detached' });
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();
    await page.keyboard.type('ping 4712');
    await page.keyboard.press('Control+j');
    await shown('4712}').waitFor();
    await page.keyboard.press('Shift+Tab');
    assert.equal(await page.evaluate("document.activeElement.closest('.console') === null"), true, 'no trap');
  });

  test('shows the screen', async () => {
    await page.getByRole('link', { name: 'Screen' }).click();
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();
    await until(
      page,
      `(() => {
      const canvas = document.querySelector('.screen canvas');
      if (!canvas || canvas.width < 640) return false;
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value, index) => index % 4 < 3 && value > 100);
    })()`,
    );
  });

  test('changes the policy', async () => {
    await page.getByRole('link', { name: 'Settings' }).click();
    await page.getByLabel('On boot').selectOption('restore');
    await page.getByLabel('Order').fill('7');
    await page.getByLabel('Time limit, seconds').fill('120');
    await page.getByRole('button', { name: 'Save policy' }).click();
    await notice('The policy of web1 is changed');
    const { policy, definition } = await lab.client.getGuest('web1');
    const changed = { onBoot: 'restore', order: 7, timeLimitSeconds: 120 };
    assert.deepEqual({ ...policy, ...changed }, policy);
    assert.ok(typeof definition === 'object' && definition !== null && 'policy' in definition);
    assert.deepEqual(definition.policy, changed, 'the rest is still what the host says');
  });

  test('adds a schedule, pauses it, and changes the rules which images stay', async () => {
    await page.getByRole('button', { name: 'Add a schedule…' }).click();
    await page.getByLabel('Time zone').fill('Europe/Atlantis');
    await page.getByRole('button', { name: 'Add', exact: true }).click();
    await page.getByText('time zone Europe/Atlantis').waitFor();
    await page.getByLabel('Time zone').fill('Europe/Berlin');
    await page.getByRole('button', { name: 'Add', exact: true }).click();
    await notice('Schedule nightly is there');
    await page.getByRole('button', { name: 'Pause schedule nightly' }).click();
    await notice('Schedule nightly is paused');
    await page.getByLabel('Daily').fill('7');
    await page.getByRole('button', { name: 'Save rules' }).click();
    await notice('The rules of web1 are changed');
    const { schedules, retention } = await lab.client.getGuest('web1');
    assert.deepEqual(
      schedules.map(({ name, cron, timeZone, paused }) => ({ name, cron, timeZone, paused })),
      [{ name: 'nightly', cron: '0 3 * * *', timeZone: 'Europe/Berlin', paused: true }],
    );
    assert.equal(retention.keepDaily, 7);
  });

  test('clones an image into a new guest, and deletes it, by keyboard alone', async () => {
    await page.getByRole('link', { name: 'Images' }).click();
    await row('first').focus();
    await page.keyboard.press('Enter'); // let go of it, and choose it again
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Clone…' }).press('Enter');
    await dialog().getByLabel('Name of the new guest').press('Tab');
    await dialog().getByLabel('Name of the new guest').fill('copy');
    await page.keyboard.press('Enter');
    await notice('copy runs');
    const copy = await lab.witness('copy');
    assert.equal((await copy.checksum()).errors, 0);
    await copy.close();
    await lab.client.stop('copy');
    await row('first').focus();
    await page.keyboard.press('ArrowUp');
    assert.match(String(await page.evaluate('document.activeElement.textContent')), /^before-restore/);
    await page.getByRole('button', { name: 'Delete…' }).press('Enter');
    await dialog().getByText("web1 can't be put back to").waitFor();
    await dialog()
      .getByText(/[1-9]\S* [KMG]iB become free\./)
      .waitFor();
    await dialog().getByRole('button', { name: 'Delete' }).press('Enter');
    await notice('first is deleted');
    await row('first').waitFor({ state: 'detached' });
    const names = (await lab.client.listSaveImages('web1')).map(({ name }) => name);
    assert.equal(names.includes('first'), false);
    assert.equal(names.length, 1);
  });

  test('is accessible in every view, in light and dark and on a phone', async () => {
    const views: [fragment: string, ready: string][] = [
      ['#/', 'table.guests'],
      ['#/guests/web1', '.image-row'],
      ['#/guests/web2', '.empty'],
      ['#/guests/web1/screen', '.screen canvas'],
      ['#/guests/web1/console', '.xterm-rows'],
      ['#/guests/web1/history', 'table.operations'],
      ['#/guests/web1/settings', 'form.policy'],
      ['#/host', '.checks li'],
      ['#/events', 'table.events'],
      ['#/guests/nobody', '.failure'],
    ];
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      for (const [fragment, ready] of views) {
        await visit.go(fragment);
        await page.locator(ready).first().waitFor();
        if (fragment === '#/guests/web1') await openDetails();
        assert.deepEqual(await violations(), [], `${fragment}, ${colorScheme}`);
      }
    }
    await page.setViewportSize({ width: 390, height: 780 });
    for (const [fragment, ready] of views) {
      await visit.go(fragment);
      await page.locator(ready).first().waitFor();
      const wide = await page.evaluate('document.documentElement.scrollWidth - innerWidth');
      assert.ok(Number(wide) <= 0, `${fragment} is ${String(wide)} px wider than a phone`);
    }
    await page.setViewportSize({ width: 1200, height: 800 });
  });

  const openDetails = async () => {
    const image = page.locator('.image-row').first();
    if ((await image.getAttribute('aria-pressed')) === 'false') await image.click();
    await page.getByRole('button', { name: 'Restore…' }).waitFor();
  };

  const violations = async (): Promise<unknown> => {
    await page.evaluate(axe.source);
    return page.evaluate(
      'axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => [id, html, failureSummary])))',
    );
  };

  test('says when the daemon is away, and goes on when it is back', async () => {
    await visit.go('#/');
    await page.locator('table.guests').waitFor();
    assert.deepEqual(
      visit.complaints.filter((text) => !/40[049]|Disconnection timed out/.test(text)), // noVNC's, on a busy host
      [],
      'nothing was refused by the policy, nothing threw',
    );
    await lab.endDaemon('SIGKILL');
    await page.getByText('Connection lost').waitFor();
    await lab.startDaemon();
    await page.getByText('Connection lost').waitFor({ state: 'detached' });
    await lab.client.pause('web1');
    await page.getByRole('row', { name: /web1/ }).getByText('paused').waitFor();
  });

  test('a link that was used is told as that to another browser', async () => {
    const link = visit.link();
    for (const expected of ['Guests', 'This page has no session']) {
      await using context = await visit.browser.newContext();
      const other = await context.newPage();
      await other.goto(link);
      await other.getByRole('heading', { name: expected }).waitFor();
    }
  });
});
