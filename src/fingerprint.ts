/** What a certificate is known by, and what people compare. */
import { X509Certificate } from 'node:crypto';

/** SHA-256 of the whole certificate, hexadecimal. */
export function fingerprintOf(certificate: string | Buffer | X509Certificate): string {
  const read = certificate instanceof X509Certificate ? certificate : new X509Certificate(certificate);
  return read.fingerprint256.replaceAll(':', '').toLowerCase();
}
