/** The web page: web. */
import { once } from 'node:events';
import { InvalidArgumentError, type Command } from 'commander';
import { formatEndpoint } from '../../client/connect.ts';
import { StasisError } from '../../errors.ts';
import { Gateway } from '../../gateway/gateway.ts';
import { openSession } from '../session.ts';

export function register(program: Command): void {
  program
    .command('web')
    .summary('the web page, on this host')
    .description(
      'Serves the web page on 127.0.0.1 until Ctrl-C and prints a link to it. The link is good for one browser; Enter prints another.',
    )
    .option('--port <n>', 'listen there (default: any free port)', port)
    .addHelpText('after', '\nExample:\n  $ stasis web --port 8006')
    .action(web);
}

async function web(options: { port?: number }, command: Command): Promise<void> {
  const { client, output } = await openSession(command);
  const { endpoint } = client;
  if (endpoint.kind !== 'unix') {
    throw new StasisError(
      'unsupported',
      `the daemon serves the page itself there, unless that was switched off: open ${formatEndpoint(endpoint)} in a browser`,
    );
  }
  await client.hostStatus(); // a page without a daemon is no use: better said here
  await using gateway = await Gateway.open(endpoint.path, options.port ?? 0);
  const tell = () => {
    const url = gateway.link();
    output.print({ url }, () => [url]);
  };
  tell();
  if (process.stdin.isTTY) {
    output.note('Enter prints another link, Ctrl-C ends.');
    process.stdin.on('data', tell);
  }
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  process.stdin.destroy();
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 65_535) {
    throw new InvalidArgumentError('It is no port between 1 and 65535.');
  }
  return value;
}
