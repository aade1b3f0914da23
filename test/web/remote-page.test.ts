/** The page from another machine: who is let in, what they may do, and when that ends. In Chromium, over HTTPS. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import type { Role } from '../../src/api/constants.ts';
import { startChromium } from '../support/browser.ts';
import { Lab } from '../support/lab.ts';

describe('the page over HTTPS', () => {
  let lab: Lab;
  let browser: Browser;
  let url: string;
  before(async () => {
    lab = await Lab.create();
    await lab.define('web1', { system: 'bare', disks: 1, extra: { serial: true } });
    await lab.client.start('web1');
    const { listen } = await lab.client.turnOnRemote({ listen: '127.0.0.1:0', names: ['localhost'] });
    url = `https://localhost:${listen?.split(':').at(-1)}/`;
    browser = await startChromium();
  });
  after(async () => {
    await browser.close();
    await lab[Symbol.asyncDispose]();
  });

  const grant = async (name: string, role: Role): Promise<string> => {
    const { token = '' } = await lab.client.grantCredential({ name, kind: 'token', role, expiresInDays: 1 });
    return token;
  };

  /** A browser of its own at the door. Whom it believes is not what this is about. */
  async function visit(): Promise<Page> {
    const context = await browser.newContext({
      ignoreHTTPSErrors: true,
      viewport: { width: 1200, height: 800 },
    });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    await page.goto(url);
    await page.getByRole('heading', { name: 'Stasis on localhost' }).waitFor();
    return page;
  }

  async function enter(page: Page, token: string): Promise<void> {
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Log in' }).click();
  }

  const violations = async (page: Page): Promise<unknown> => {
    await page.evaluate(axe.source);
    return page.evaluate(
      'axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => [id, html, failureSummary])))',
    );
  };

  test('an operator logs in, saves, and logs out; the trail says who it was', async () => {
    const page = await visit();
    const complaints: string[] = [];
    page.on('pageerror', ({ message }) => complaints.push(message));
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      assert.deepEqual(await violations(page), [], colorScheme);
    }
    await enter(page, `stasis_${'0'.repeat(16)}_${'A'.repeat(43)}`);
    await page.getByRole('alert').getByText('This token is not good here').waitFor();
    assert.deepEqual(await violations(page), [], 'refused');
    await enter(page, await grant('olga', 'operator'));
    await page.getByText('olga · operator').waitFor();

    const [cookie, ...others] = await page.context().cookies();
    assert.deepEqual(others, []);
    const { name, httpOnly, secure, sameSite, path, domain } = cookie ?? {};
    assert.deepEqual(
      { name, httpOnly, secure, sameSite, path, domain },
      {
        ...{ name: '__Host-stasis-session', httpOnly: true, secure: true },
        ...{ sameSite: 'Strict', path: '/', domain: 'localhost' },
      },
    );
    assert.equal(await page.evaluate('document.cookie'), '');

    await page.getByRole('link', { name: 'web1' }).click();
    await page.getByRole('button', { name: 'Live save…' }).click();
    await page.getByRole('dialog').getByLabel('Name').fill('first');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('log').getByText('web1 is saved as first').waitFor();
    assert.equal((await lab.client.getSaveImageInfo('web1', 'first')).state, 'ready');
    await page.getByRole('link', { name: 'Console' }).click();
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();
    await page.reload(); // the session is the browser's, not the page's
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();

    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Stasis on localhost' }).waitFor();
    assert.deepEqual(await page.context().cookies(), []);
    assert.deepEqual(
      complaints.filter((text) => !/401|INCOMPLETE/.test(text)), // a refusal, and streams that ended with the session,
      [],
      'nothing was refused by the policy, nothing threw',
    );
    await page.context().close();

    const trail = await lab.client.listAudit({ limit: 100 });
    const said = trail
      .filter(({ caller }) => caller?.via === 'https')
      .map(({ action, outcome, caller }) => [action, outcome, caller?.credential, caller?.session !== null]);
    assert.deepEqual(said, [
      ['POST /v1/session', 'unauthorized', null, false],
      ['POST /v1/session', 'done', 'olga', true],
      ['POST /v1/guests/:guest/images', 'accepted', 'olga', true],
      ['save', 'done', 'olga', true],
      ['open console', 'done', 'olga', true],
      ['open console', 'done', 'olga', true],
      ['DELETE /v1/session', 'done', 'olga', true],
    ]);
  });

  test('a viewer is offered nothing that they may not do', async () => {
    const page = await visit();
    await enter(page, await grant('vera', 'viewer'));
    await page.getByText('vera · viewer').waitFor();
    await page.getByRole('link', { name: 'web1' }).click();
    for (const name of ['Live save…', 'Save and stop…', 'Pause']) {
      const button = page.getByRole('button', { name, exact: true });
      assert.equal(await button.isDisabled(), true, name);
      assert.match(
        (await button.getAttribute('title')) ?? '',
        /needs the role operator; vera is viewer here/,
      );
    }
    await page.getByRole('link', { name: 'Console' }).click();
    await page.getByRole('heading', { name: 'The console is not shown' }).waitFor();
    assert.deepEqual(await violations(page), []);
    await page.getByRole('link', { name: 'Events' }).click();
    await page.locator('table.events').first().waitFor();
    await page.getByRole('heading', { name: 'Who did what' }).waitFor({ state: 'detached' });
    await page.context().close();
  });

  test('each view is one request, beside the stream that keeps all of them true', async () => {
    const page = await visit();
    const asked: string[] = [];
    page.on('request', (request) => {
      const { pathname } = new URL(request.url());
      if (pathname.startsWith('/v1/')) asked.push(`${request.method()} ${pathname}`);
    });
    const follow = async (name: string, ready: string) => {
      await page.getByRole('link', { name, exact: true }).click();
      await page.locator(ready).first().waitFor();
    };
    await enter(page, await grant('nina', 'admin'));
    await page.locator('table.guests').waitFor();
    await follow('web1', '.image-row');
    await follow('History', '.history');
    await follow('Settings', 'form.policy');
    await follow('Host', '.checks li');
    await follow('Events', 'table.audit');
    const again = page.waitForRequest('**/v1/events?**');
    await page.reload();
    await page.locator('table.audit').waitFor();
    await again;
    const [stream, guest] = ['GET /v1/events', 'GET /v1/guests/web1/overview'];
    assert.deepEqual(asked, [
      ...['POST /v1/session', 'GET /v1/overview', stream],
      ...[guest, guest, guest, 'GET /v1/host/overview', 'GET /v1/events/overview'],
      ...['GET /v1/events/overview', stream],
    ]);
    await page.context().close();
  });

  test('a token that is revoked ends its session, its console and all that it had open, at once', async () => {
    const page = await visit();
    await enter(page, await grant('rita', 'operator'));
    await page.getByRole('link', { name: 'web1' }).click();
    await page.getByRole('link', { name: 'Console' }).click();
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();
    await lab.client.revokeCredential('rita');
    await page.getByText('Your session has ended').waitFor();
    assert.equal(await page.getByText('web1').count(), 0, 'nothing of what was shown is left');
    assert.equal((await lab.client.getGuest('web1')).state, 'running', 'the guest is none the worse');
    await page.context().close();
  });
});
