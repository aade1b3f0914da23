/** Where the page is, kept in the fragment of its address: `#/guests/web1/console`. */
import { signal } from '@preact/signals';

export const TABS = ['images', 'screen', 'console', 'history', 'settings'] as const;
export type Tab = (typeof TABS)[number];

export type Route =
  | { readonly page: 'guests' }
  | { readonly page: 'guest'; readonly guest: string; readonly tab: Tab }
  | { readonly page: 'host' }
  | { readonly page: 'events' };

export const route = signal<Route>(parseRoute(location.hash));

window.addEventListener('hashchange', () => {
  route.value = parseRoute(location.hash);
});

function parseRoute(fragment: string): Route {
  const [first, second, third] = fragment.replace(/^#\/?/, '').split('/').map(decode);
  if (first === 'guests' && second !== undefined && second !== '') {
    return { page: 'guest', guest: second, tab: TABS.find((tab) => tab === third) ?? 'images' };
  }
  if (first === 'host' || first === 'events') return { page: first };
  return { page: 'guests' };
}

export function guestAddress(guest: string, tab: Tab = 'images'): string {
  return `#/guests/${encodeURIComponent(guest)}${tab === 'images' ? '' : `/${tab}`}`;
}

/** An address that was typed wrong is no page, rather than an error. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return '';
  }
}
