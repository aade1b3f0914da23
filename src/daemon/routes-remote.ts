/** Access from other machines: the listener, who is let in, and the sessions of the page. */
import Type from 'typebox';
import { fingerprintOf } from '../fingerprint.ts';
import { mintToken } from '../access/token.ts';
import {
  CredentialRequest,
  RemoteRequest,
  type Credential,
  type NewCredential,
  type Principal,
  type RemoteStatus,
} from '../api/remote.ts';
import { Ref } from '../api/schemas.ts';
import {
  insertCredential,
  listCredentials,
  revokeCredential,
  type CredentialRecord,
} from '../catalog/credentials.ts';
import { newId } from '../ids.ts';
import { fromStored } from '../stored.ts';
import { Failure, type Routes } from './routes-guests.ts';
import type { DaemonContext } from './views.ts';

const DAY_MS = 86_400_000;
const StatusRef = Ref<RemoteStatus>('RemoteStatus');
const CredentialRef = Ref<Credential>('Credential');

export function remoteRoutes(routes: Routes, { host, remote, gate }: DaemonContext): void {
  const { catalog } = host;

  routes.get(
    '/v1/remote',
    { schema: { summary: 'Access from other machines', response: { 200: StatusRef, default: Failure } } },
    () => remote.status(),
  );

  routes.put(
    '/v1/remote',
    {
      schema: {
        summary: 'Let other machines in, from now on and after each start',
        body: RemoteRequest,
        response: { 200: StatusRef, default: Failure },
      },
    },
    (request) => remote.turnOn(request.body),
  );

  routes.delete(
    '/v1/remote',
    {
      schema: {
        summary: 'Let no other machine in any more; credentials and the authority are kept',
        response: { 200: StatusRef, default: Failure },
      },
    },
    async () => {
      await remote.turnOff();
      return remote.status();
    },
  );

  routes.get(
    '/v1/credentials',
    {
      schema: {
        summary: 'Tokens and certificates, without their secrets',
        response: { 200: Type.Array(CredentialRef), default: Failure },
      },
    },
    async () => (await listCredentials(catalog)).map(credentialView),
  );

  routes.post(
    '/v1/credentials',
    {
      schema: {
        summary: 'A new token or certificate; its secret is told this once',
        body: CredentialRequest,
        response: { 200: Ref<NewCredential>('NewCredential'), default: Failure },
      },
    },
    async (request): Promise<NewCredential> => {
      const { name, kind, role, labels, expiresInDays } = request.body;
      const now = Date.now();
      const expiresAt = new Date(now + expiresInDays * DAY_MS);
      const made = kind === 'token' ? newToken() : await newCertificate(name, expiresAt);
      const record = {
        ...{ id: made.id, name, kind, secretHash: made.secretHash, role },
        labels: labels === undefined ? null : JSON.stringify(labels),
        ...{ createdAt: new Date(now).toISOString(), expiresAt: expiresAt.toISOString() },
      };
      await insertCredential(catalog, record);
      const credential = credentialView({ ...record, revokedAt: null, lastUsedAt: null });
      return { credential, ...made.told };
    },
  );

  routes.delete(
    '/v1/credentials/:name',
    {
      schema: {
        summary: 'Let nobody in by it any more, from now on; what goes on by it ends',
        params: Type.Object({ name: Type.String() }),
        response: { 200: Type.Array(CredentialRef), default: Failure },
      },
    },
    async (request) => {
      const id = await revokeCredential(catalog, request.params.name, new Date());
      gate.endCredential(id, request.raw);
      return (await listCredentials(catalog)).map(credentialView);
    },
  );

  routes.post(
    '/v1/session',
    {
      schema: {
        summary: 'Trade the token that this comes with for a cookie: a session of the page',
        response: { 200: Ref<Principal>('Principal'), default: Failure },
      },
    },
    async (request, reply) => {
      const { principal, cookie } = await gate.beginSession(request.raw);
      void reply.header('set-cookie', cookie).header('cache-control', 'no-store');
      return principal;
    },
  );

  routes.delete(
    '/v1/session',
    {
      schema: {
        summary: 'End the session that this comes by',
        response: { 204: Type.Null(), default: Failure },
      },
    },
    async (request, reply) => {
      void reply.status(204).header('set-cookie', gate.endSession(request.raw));
      return null;
    },
  );

  function newToken() {
    const { id, hash, token } = mintToken();
    return { id, secretHash: hash, told: { token } };
  }

  async function newCertificate(name: string, expiresAt: Date) {
    const identity = await remote.issueClient(name, expiresAt);
    return { id: newId(), secretHash: fingerprintOf(identity.certificate), told: identity };
  }
}

function credentialView(record: CredentialRecord): Credential {
  const { name, kind, role, labels, createdAt, expiresAt, revokedAt, lastUsedAt } = record;
  return {
    ...{ name, kind, role, createdAt, expiresAt, revokedAt, lastUsedAt },
    labels: labels === null ? null : fromStored<string[]>(labels),
  };
}
