/** Access from other machines: remote (on the daemon's host), login, logout (on the other one). */
import { readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { text } from 'node:stream/consumers';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { ROLES, type Role } from '../../api/constants.ts';
import type { Credential, RemoteStatus } from '../../api/remote.ts';
import { formatEndpoint, parseEndpoint } from '../../client/connect.ts';
import { StasisClient } from '../../client/stasis-client.ts';
import { StasisError } from '../../errors.ts';
import { positiveNumber } from '../arguments.ts';
import { authorityOf } from '../authority-of.ts';
import { renderFields } from '../fields.ts';
import { Output } from '../output.ts';
import { keepRemote, type HttpsEndpoint } from '../remotes.ts';
import { openSession, type GlobalOptions } from '../session.ts';
import { renderTable, type Column } from '../table.ts';
import { formatAge, formatDate } from '../units.ts';

const DEFAULT_DAYS = 90;
const DEFAULT_LISTEN = '0.0.0.0:8442';

export function register(program: Command): void {
  const remote = program
    .command('remote')
    .summary('access from other machines')
    .description('Lets other machines reach this daemon, by HTTPS; off until it is set up.');
  remote
    .command('setup')
    .summary('turn it on, or change it')
    .description(
      "Listens for HTTPS (TLS 1.3) from now on and after each start. A certificate authority of the daemon's own vouches for it, unless a certificate is given.",
    )
    .option('--listen <host:port>', 'where', DEFAULT_LISTEN)
    .option('--name <name...>', 'what clients call this host: names and addresses (default: its host name)')
    .option('--certificate <file>', 'PEM with the chain, in place of one of its own; with --key')
    .option('--key <file>', 'PEM')
    .option('--no-page', 'only the API, and no web page')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis remote setup --name kvm1.example.org\n  $ stasis remote setup --certificate fullchain.pem --key privkey.pem --name kvm1.example.org',
    )
    .action(setUp);
  remote
    .command('status')
    .summary('whether it is on, where, and whom clients have to trust')
    .addHelpText('after', '\nExample:\n  $ stasis remote status')
    .action(status);
  remote
    .command('off')
    .summary('let no other machine in')
    .description('Ends all connections from other machines and lets no more in. Credentials are kept.')
    .addHelpText('after', '\nExample:\n  $ stasis remote off')
    .action(turnOff);
  remote
    .command('grant')
    .summary('a token or certificate for somebody')
    .description(
      'Makes a token, or with --certificate a client certificate (mutual TLS), and prints it this once. Viewers look, operators also save, restore and use consoles, admins may do everything.',
    )
    .argument('<name>', 'whose it is')
    .addOption(new Option('--role <role>', 'what they may do').choices(ROLES).makeOptionMandatory())
    .option('--label <label...>', 'only with guests that have one of these labels (default: all guests)')
    .option('--days <n>', 'good for so long', positiveNumber, DEFAULT_DAYS)
    .option('--certificate <file>', 'a certificate with its key, into that new file')
    .addHelpText(
      'after',
      '\nExamples:\n  $ stasis remote grant alice --role operator --label web\n  $ stasis remote grant backup-host --role operator --certificate backup-host.pem',
    )
    .action(grant);
  remote
    .command('credentials')
    .summary('who is let in')
    .addHelpText('after', '\nExample:\n  $ stasis remote credentials')
    .action(credentials);
  remote
    .command('revoke')
    .summary('let somebody in no more')
    .description('From now on; what goes on by it, such as consoles and sessions of the page, ends at once.')
    .argument('<name>')
    .addHelpText('after', '\nExample:\n  $ stasis remote revoke alice')
    .action(revoke);

  program
    .command('login')
    .summary('keep what a daemon on another machine needs')
    .description(
      'Tries a daemon on another machine and keeps whom to believe and the token, so that --connect URL is enough from then on. The token is read from stdin.',
    )
    .argument('<url>', 'https://HOST:PORT', httpsEndpoint)
    .option(
      '--fingerprint <sha256>',
      "of the authority that vouches for it, as 'stasis remote status' tells it there",
    )
    .option('--certificate <file>', 'a certificate with its key, in place of a token')
    .addHelpText(
      'after',
      '\nExample:\n  $ stasis login https://kvm1.example.org:8442 --fingerprint 1f0c… < token',
    )
    .action(login);
  program
    .command('logout')
    .summary('forget it again')
    .argument('<url>', 'https://HOST:PORT', httpsEndpoint)
    .addHelpText('after', '\nExample:\n  $ stasis logout https://kvm1.example.org:8442')
    .action(logout);
}

interface SetUpOptions {
  readonly listen: string;
  readonly name?: string[];
  readonly certificate?: string;
  readonly key?: string;
  readonly page: boolean;
}

async function setUp(options: SetUpOptions, command: Command): Promise<void> {
  const { listen, name: names = [hostname()], certificate, key, page } = options;
  if ((certificate === undefined) !== (key === undefined))
    throw new StasisError('invalid-request', '--certificate and --key go together');
  const { client, output } = await openSession(command);
  const given =
    certificate === undefined || key === undefined
      ? {}
      : { given: { certificate: await readFile(certificate, 'utf8'), key: await readFile(key, 'utf8') } };
  const now = await client.turnOnRemote({ listen, names, page, ...given });
  output.print(now, () => [...renderStatus(now), '', ...nextSteps(now)]);
}

function nextSteps({ listen, names, fingerprint, page }: RemoteStatus): string[] {
  const url = `https://${names[0]}:${listen?.split(':').at(-1)}`;
  const pinned = fingerprint === null ? '' : ` --fingerprint ${fingerprint}`;
  return [
    'Here, for each person or machine:',
    '  stasis remote grant NAME --role viewer|operator|admin',
    'There, with the token on stdin:',
    `  stasis login ${url}${pinned}`,
    `  stasis guests --connect ${url}`,
    ...(page ? [`or, in a browser, ${url}`] : []),
  ];
}

async function status(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const now = await client.remoteStatus();
  output.print(now, () => renderStatus(now));
}

async function turnOff(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const now = await client.turnOffRemote();
  output.print(now, () => renderStatus(now));
}

function renderStatus({ listen, names, certificateExpiresAt, fingerprint, page }: RemoteStatus): string[] {
  if (listen === null) return renderFields([['remote access', 'off']]);
  return renderFields([
    ['remote access', `on, ${listen}`, 'green'],
    ['names', names.join(', ')],
    ['certificate', certificateExpiresAt === null ? null : `good until ${formatDate(certificateExpiresAt)}`],
    ['authority', fingerprint === null ? "the certificate's own" : `SHA-256 ${fingerprint}`],
    ['web page', page ? 'served there too' : 'not served'],
  ]);
}

interface GrantOptions {
  readonly role: Role;
  readonly label?: string[];
  readonly days: number;
  readonly certificate?: string;
}

async function grant(name: string, options: GrantOptions, command: Command): Promise<void> {
  const { role, label: labels, days: expiresInDays, certificate: file } = options;
  const { client, output } = await openSession(command);
  const kind = file === undefined ? 'token' : 'certificate';
  const made = await client.grantCredential({
    ...{ name, kind, role, expiresInDays },
    ...(labels === undefined ? {} : { labels }),
  });
  if (file !== undefined)
    await writeFile(file, `${made.certificate ?? ''}${made.key ?? ''}`, { mode: 0o600, flag: 'wx' });
  output.print(file === undefined ? made : made.credential, () => [made.token ?? `written to ${file}`]);
  output.note(`good until ${formatDate(made.credential.expiresAt)}; what it says is kept nowhere here`);
}

async function credentials(_options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const all = await client.listCredentials();
  output.print(all, () => renderCredentials(all, output.width));
}

async function revoke(name: string, _options: object, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const all = await client.revokeCredential(name);
  output.print(all, () => renderCredentials(all, output.width));
}

const COLUMNS: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'KIND' },
  { title: 'ROLE' },
  { title: 'GUESTS', flexible: true },
  { title: 'GOOD UNTIL' },
  { title: 'LAST USED' },
];

function renderCredentials(all: readonly Credential[], width: number): string[] {
  if (all.length === 0) return ['nobody: `stasis remote grant` makes a token or certificate'];
  const rows = all.map(({ name, kind, role, labels, expiresAt, revokedAt, lastUsedAt }) => [
    ...[name, kind, role, labels === null ? 'all' : `labelled ${labels.join(', ')}`],
    revokedAt === null ? formatDate(expiresAt) : { text: 'revoked', style: 'red' as const },
    lastUsedAt === null ? 'never' : formatAge(lastUsedAt),
  ]);
  return renderTable(COLUMNS, rows, width);
}

interface LoginOptions {
  readonly fingerprint?: string;
  readonly certificate?: string;
}

async function login(endpoint: HttpsEndpoint, options: LoginOptions, command: Command): Promise<void> {
  const output = new Output(command.optsWithGlobals<GlobalOptions>().json ?? false);
  const { fingerprint, certificate } = options;
  if (certificate === undefined && process.stdin.isTTY) output.note('paste the token, then Enter and Ctrl-D');
  const remote = {
    ...(fingerprint === undefined ? {} : { authority: await authorityOf(endpoint.url, fingerprint) }),
    ...(certificate === undefined
      ? { token: (await text(process.stdin)).trim() }
      : await identityIn(certificate)),
  };
  await new StasisClient({ connect: { ...endpoint, ...remote } }).listGuests();
  await keepRemote(endpoint.url.origin, remote);
  const url = formatEndpoint(endpoint);
  output.print({ url }, () => [`${url} is known: stasis guests --connect ${url}`]);
}

async function identityIn(file: string): Promise<Pick<HttpsEndpoint, 'identity'>> {
  const pem = await readFile(file, 'utf8');
  return { identity: { certificate: pem, key: pem } };
}

async function logout(endpoint: HttpsEndpoint, _options: object, command: Command): Promise<void> {
  const output = new Output(command.optsWithGlobals<GlobalOptions>().json ?? false);
  await keepRemote(endpoint.url.origin, undefined);
  const url = formatEndpoint(endpoint);
  output.print({ url }, () => [`${url} is forgotten`]);
}

function httpsEndpoint(url: string): HttpsEndpoint {
  const endpoint = parseEndpoint(url);
  if (endpoint.kind !== 'https') throw new InvalidArgumentError('It is no https://HOST:PORT.');
  return endpoint;
}
