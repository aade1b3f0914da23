/**
 * Which folder of src/ may know which: arrows of ARCHITECTURE.md, checked. Prints every import that points the wrong
 * way and every cycle between files, and fails when there is one.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

/** Single files that everybody may use and that use nobody but each other. */
const LEAVES = [
  'directory',
  'ending-with-us',
  'errors',
  'fingerprint',
  'ids',
  'installation',
  'log',
  'paths',
  'qemu-user',
  'socket-path',
  'stillness',
  'stored',
  'timetable',
  'units',
  'version',
  'yaml',
];

/** A folder, and what it may import beside itself and the leaves. */
export const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  api: [],
  qemu: [],
  systemd: [],
  storage: ['api', 'qemu'],
  catalog: ['api'],
  access: ['api'],
  page: ['api'],
  operations: ['api', 'catalog'],
  guests: ['api', 'catalog', 'operations', 'qemu', 'storage'],
  libvirt: ['guests'],
  images: ['api', 'catalog', 'guests', 'operations', 'qemu', 'storage'],
  policy: ['api', 'catalog', 'guests', 'images', 'operations', 'qemu'],
  recovery: ['api', 'catalog', 'guests', 'images', 'operations', 'qemu', 'storage'],
  daemon: [
    'access',
    'api',
    'catalog',
    'guests',
    'images',
    'operations',
    'page',
    'policy',
    'qemu',
    'recovery',
    'storage',
    'systemd',
  ],
  client: ['api', 'qemu'],
  gateway: ['api', 'client', 'page'],
  web: ['access', 'api', 'client'],
  cli: ['api', 'client', 'gateway', 'libvirt', 'qemu', 'recovery', 'systemd'],
  main: ['daemon', 'cli'],
};

export interface SourceFile {
  /** relative to src/, such as `images/save.ts` */
  readonly path: string;
  readonly text: string;
}

const STATIC_IMPORT = /from\s+'(\.{1,2}\/[^']+)'/g;
const LAZY_IMPORT = /import\(\s*'(\.{1,2}\/[^']+)'/g;

/** @returns one line for each import that no arrow allows and each cycle of files */
export function findViolations(files: readonly SourceFile[]): string[] {
  const wrong = files.flatMap((file) =>
    [...importsOf(file, STATIC_IMPORT), ...importsOf(file, LAZY_IMPORT)]
      .filter((target) => !isAllowed(partOf(file.path), partOf(target)))
      .map((target) => `${file.path} must not know ${target}`),
  );
  // What is loaded later, when it is needed, closes no cycle.
  return [...wrong, ...findCycles(new Map(files.map((file) => [file.path, importsOf(file, STATIC_IMPORT)])))];
}

function importsOf({ path, text }: SourceFile, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(([, target = '']) =>
    relative('/', resolve('/', dirname(path), target)),
  );
}

/** The folder of a file, or the file's own name at the top of src/. */
function partOf(path: string): string {
  return path.split('/')[0]?.replace(/\.ts$/, '') ?? '';
}

function isAllowed(from: string, to: string): boolean {
  if (from === to || LEAVES.includes(to)) return true;
  return ALLOWED[from]?.includes(to) ?? false;
}

function findCycles(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start >= 0) cycles.push(`a cycle: ${[...trail.slice(start), path].join(' → ')}`);
    if (start >= 0 || done.has(path)) return;
    for (const target of imports.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of imports.keys()) visit(path, []);
  return cycles;
}

function readSources(root: string): SourceFile[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.tsx?$/.test(path))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
}

if (import.meta.main) {
  const violations = findViolations(readSources(join(import.meta.dirname, '../src')));
  for (const violation of violations) process.stderr.write(`structure: ${violation}\n`);
  process.exitCode = violations.length === 0 ? 0 : 1;
}
