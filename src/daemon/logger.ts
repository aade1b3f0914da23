/**
 * The daemon's log, on stderr: a JSON document per line; a line for people when a terminal reads it; with the priority that
 * journald takes from the beginning of a line (sd-daemon(3)) when that reads it.
 */
import { isatty } from 'node:tty';
import { fstatSync } from 'node:fs';
import pino, { type Logger } from 'pino';
import { scopeFields } from '../log.ts';
import { redacted, redactedText } from './redact.ts';

const STDERR = 2;
/** What pino calls them, and syslog(3). */
const PRIORITIES: Readonly<Record<string, number>> = {
  fatal: 2,
  error: 3,
  warn: 4,
  info: 6,
  debug: 7,
  trace: 7,
};

export interface Destination {
  write(line: string): void;
}

/** What can't be written meanwhile is kept up to here; what is more is lost. */
const MAX_KEPT_BYTES = 1024 ** 2;

/** A log that is full, or whose reader is gone, is no reason for the daemon to end: it is written on when that is over. */
export function logDestination(descriptor: number): Destination {
  const destination = pino.destination({ fd: descriptor, sync: true, maxLength: MAX_KEPT_BYTES });
  return destination.on('error', () => undefined);
}

/**
 * @param level the least that is told: trace, debug, info, warn, error, fatal or silent
 * @param format how a line is written
 */
export function createLogger(
  level: string,
  destination: Destination = logDestination(STDERR),
  format: (line: string) => string = formatOf(process.env),
): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      mixin: scopeFields,
      formatters: {
        level: (label) => ({ level: label }),
        log: (fields) => objectOf(redacted(fields)),
      },
    },
    { write: (line: string) => destination.write(format(redactedText(line))) },
  );
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function formatOf(environment: NodeJS.ProcessEnv): (line: string) => string {
  if (isJournal(environment['JOURNAL_STREAM'])) return forJournal;
  return isatty(STDERR) ? forPeople : (line) => line;
}

/** `DEVICE:INODE` of what systemd connected: a child of a service may have another stderr, systemd.exec(5). */
function isJournal(stream: string | undefined): boolean {
  if (stream === undefined) return false;
  const { dev, ino } = fstatSync(STDERR);
  return stream === `${dev}:${ino}`;
}

export function forJournal(line: string): string {
  return `<${PRIORITIES[levelOf(line)] ?? 6}>${line}`;
}

export function forPeople(line: string): string {
  const { time, level, msg, ...fields } = parsed(line);
  const told = Object.entries(fields).map(([name, value]) => ` ${name}=${plain(value)}`);
  return `${plain(time)} ${plain(level).toUpperCase()} ${typeof msg === 'string' ? msg : ''}${told.join('')}\n`;
}

function plain(value: unknown): string {
  return typeof value === 'string' && !/[\s"]/.test(value) ? value : JSON.stringify(value);
}

function levelOf(line: string): string {
  return /^\{"level":"(\w+)"/.exec(line)?.[1] ?? '';
}

/** A line that pino wrote. */
function parsed(line: string): Record<string, unknown> {
  const value: unknown = JSON.parse(line);
  return objectOf(value);
}
