/** Which authority vouches for a server, before it is believed: for somebody to compare its fingerprint. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { fingerprintOf } from '../fingerprint.ts';
import { StasisError, messageOf } from '../errors.ts';

const HTTPS_PORT = 443;
const TIMEOUT_MS = 10_000;

/**
 * The certificate of the chain that a server sends which has that fingerprint, as PEM.
 * @param fingerprint SHA-256, hexadecimal, with colons or without
 * @throws StasisError `daemon-unreachable`, `unauthorized` when none has it: something else answers there
 */
export async function authorityOf(url: URL, fingerprint: string): Promise<string> {
  const wanted = fingerprint.replaceAll(':', '').toLowerCase();
  const chain = await chainOf(url);
  const found = chain.find((raw) => fingerprintOf(raw) === wanted);
  if (found !== undefined) return new X509Certificate(found).toString();
  throw new StasisError(
    'unauthorized',
    `what answers at ${url.origin} has no certificate with that fingerprint: it is not that daemon, or the fingerprint is another one's`,
    { details: { fingerprints: chain.map(fingerprintOf) } },
  );
}

async function chainOf(url: URL): Promise<Buffer[]> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  // Nothing is sent or believed: the chain is only looked at.
  const socket = connect({ host, port: Number(url.port || HTTPS_PORT), rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(TIMEOUT_MS) });
    return certificatesFrom(socket.getPeerCertificate(true));
  } catch (error) {
    throw new StasisError('daemon-unreachable', `nobody answers at ${url.origin}: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    socket.destroy();
  }
}

/** The last one, if it is a root, names itself as its issuer. */
function certificatesFrom(leaf: DetailedPeerCertificate): Buffer[] {
  const found: Buffer[] = [];
  for (let one: DetailedPeerCertificate | undefined = leaf; one !== undefined; one = one.issuerCertificate) {
    if (found.some((raw) => raw.equals(one?.raw ?? raw))) break;
    found.push(one.raw);
  }
  return found;
}
