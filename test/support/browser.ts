/** Debian's Chromium on the page of a lab, by the way a user comes: a link of the gateway. */
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';
import { Gateway } from '../../src/gateway/gateway.ts';
import type { Lab } from './lab.ts';

const CHROMIUM = '/usr/bin/chromium';
/** On a busy machine a guest under TCG takes its time. */
const TIMEOUT_MS = 60_000;

export class Visit implements AsyncDisposable {
  readonly page: Page;
  readonly browser: Browser;
  /** what the page complained of: a refused script, an exception */
  readonly complaints: string[];
  readonly #gateway: Gateway;

  private constructor(gateway: Gateway, browser: Browser, page: Page, complaints: string[]) {
    this.#gateway = gateway;
    this.browser = browser;
    this.page = page;
    this.complaints = complaints;
  }

  static async open(lab: Lab, options: BrowserContextOptions = {}): Promise<Visit> {
    await using stack = new AsyncDisposableStack();
    const gateway = stack.use(await Gateway.open(lab.paths.socket, 0));
    const browser = await startChromium();
    stack.defer(() => browser.close());
    const page = await browser.newPage({ viewport: { width: 1200, height: 800 }, ...options });
    page.setDefaultTimeout(TIMEOUT_MS);
    const complaints: string[] = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    await page.goto(gateway.link());
    stack.move();
    return new Visit(gateway, browser, page, complaints);
  }

  /** Another link to the same gateway. */
  link(): string {
    return this.#gateway.link();
  }

  async go(fragment: string): Promise<void> {
    await this.page.evaluate(`location.hash = ${JSON.stringify(fragment)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.browser.close();
    await this.#gateway[Symbol.asyncDispose]();
  }
}

/** @param executablePath in its place, a program that ends up as it @param more arguments for it */
export function startChromium(
  executablePath: string = CHROMIUM,
  more: readonly string[] = [],
): Promise<Browser> {
  return chromium.launch({
    executablePath,
    // Its own sandbox refuses to start as root.
    args: [...(process.geteuid?.() === 0 ? ['--no-sandbox'] : []), ...more],
  });
}

/** Resolves when an expression holds in the page. By its frames: the page's own policy lets nobody evaluate text in it. */
export async function until(page: Page, expression: string): Promise<void> {
  await page.evaluate(
    `new Promise((resolve) => { const look = () => (${expression} ? resolve() : requestAnimationFrame(look)); look(); })`,
  );
}
