/**
 * How the program is built: to find and load thousands of small modules took more than half of a daemon's start. Libraries that
 * bring machine code, or workers, stay packages of their own.
 */
import { join } from 'node:path';
import { defineConfig } from 'vite';

const SOURCES = join(import.meta.dirname, 'src');
const PROGRAMS = ['main', 'qemu/pager/pager-main', 'storage/file-sum-main'];

export default defineConfig({
  root: SOURCES,
  ssr: { noExternal: true, external: ['koffi', 'libxml2-wasm', 'pino'] },
  build: {
    ssr: true,
    target: 'node24',
    emptyOutDir: false,
    sourcemap: true,
    license: { fileName: 'licenses.md' },
    rolldownOptions: {
      input: Object.fromEntries(PROGRAMS.map((name) => [name, join(SOURCES, `${name}.ts`)])),
      // src/installation.ts counts on all being in one folder.
      output: { entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' },
    },
  },
});
