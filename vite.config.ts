/**
 * How the web page is built: one page with its style sheet, one script, nothing fetched from elsewhere. HTTP/1.1 opens a connection
 * for each further file, which from far away are three round trips.
 */
import { join } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const styleWithinPage: Plugin = {
  name: 'style-within-page',
  transformIndexHtml: {
    order: 'post',
    handler: (html, { bundle = {} }) =>
      html.replace(/<link rel="stylesheet"[^>]* href="\.\/([^"]+)">/, (link, name: string) => {
        const sheet = bundle[name];
        if (sheet?.type !== 'asset') return link;
        delete bundle[name];
        return `<style>${String(sheet.source)}</style>`;
      }),
  },
};

export default defineConfig({
  root: join(import.meta.dirname, 'src/web'),
  // The page lives under a path that is only known when it is served.
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [styleWithinPage],
  build: {
    // noVNC begins with a top-level await.
    target: 'es2022',
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    // Also what the console and the display share with the page.
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: 'page', tags: ['$initial'] }] } } },
  },
});
