/** What travels about access from other machines. */
import Type, { type Static } from 'typebox';
import { NAME_PATTERN, PRINCIPAL_KINDS, ROLES, type PrincipalKind, type Role } from './constants.ts';

const strict = { additionalProperties: false } as const;
const RoleName = Type.Unsafe<Role>({ type: 'string', enum: [...ROLES] });

/** `host:port`, `[::1]:port` */
const LISTEN_PATTERN = '^(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9.-]+):[0-9]{1,5}$';
/** A name or an address; nothing that means something else within the name of a certificate (RFC 4514). */
const HOST_PATTERN = '^[A-Za-z0-9*:._-]+$';
const PEM_CHARS = 65_536;

export const RemoteStatus = Type.Object(
  {
    listen: Type.Union([Type.String(), Type.Null()], { description: 'host:port; null: it is off' }),
    names: Type.Array(Type.String(), { description: 'what the certificate says the daemon is called' }),
    certificateExpiresAt: Type.Union([Type.String(), Type.Null()]),
    authority: Type.Union([Type.String(), Type.Null()], {
      description: 'PEM of the certificate authority that clients trust; null: they trust it by themselves',
    }),
    fingerprint: Type.Union([Type.String(), Type.Null()], { description: "SHA-256 of the authority's" }),
    page: Type.Boolean({ description: 'the web page is served there too' }),
  },
  { $id: 'RemoteStatus' },
);
export type RemoteStatus = Static<typeof RemoteStatus>;

export const RemoteRequest = Type.Object(
  {
    listen: Type.String({ pattern: LISTEN_PATTERN }),
    names: Type.Array(Type.String({ pattern: HOST_PATTERN, maxLength: 253 }), { minItems: 1, maxItems: 32 }),
    given: Type.Optional(
      Type.Object(
        { certificate: Type.String({ maxLength: PEM_CHARS }), key: Type.String({ maxLength: PEM_CHARS }) },
        { ...strict, description: "PEM, in place of one by the daemon's own authority" },
      ),
    ),
    page: Type.Optional(Type.Boolean({ description: 'serve the web page there too (default: yes)' })),
  },
  strict,
);
export type RemoteRequest = Static<typeof RemoteRequest>;

export const Principal = Type.Object(
  {
    name: Type.String({ description: 'a user of the host, or a credential' }),
    role: RoleName,
    labels: Type.Union([Type.Array(Type.String()), Type.Null()], {
      description: 'only guests with one of these labels are there for them; null: all',
    }),
    by: Type.Unsafe<PrincipalKind>({
      type: 'string',
      enum: [...PRINCIPAL_KINDS],
      description: 'what they are known by',
    }),
    expiresAt: Type.Union([Type.String(), Type.Null()], {
      description: 'when that is good no longer at the latest',
    }),
  },
  { $id: 'Principal' },
);
/** Who a request is from, as far as that decides what it may do. */
export type Principal = Static<typeof Principal>;

export const Credential = Type.Object(
  {
    name: Type.String(),
    kind: Type.Unsafe<'token' | 'certificate'>({ type: 'string', enum: ['token', 'certificate'] }),
    role: RoleName,
    labels: Type.Union([Type.Array(Type.String()), Type.Null()], {
      description: 'only guests with one of these labels; null: all',
    }),
    createdAt: Type.String(),
    expiresAt: Type.String(),
    revokedAt: Type.Union([Type.String(), Type.Null()]),
    lastUsedAt: Type.Union([Type.String(), Type.Null()]),
  },
  { $id: 'Credential' },
);
export type Credential = Static<typeof Credential>;

export const CredentialRequest = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    kind: Type.Unsafe<'token' | 'certificate'>({ type: 'string', enum: ['token', 'certificate'] }),
    role: RoleName,
    labels: Type.Optional(Type.Array(Type.String({ pattern: NAME_PATTERN }), { minItems: 1, maxItems: 32 })),
    expiresInDays: Type.Integer({ minimum: 1, maximum: 3650 }),
  },
  strict,
);
export type CredentialRequest = Static<typeof CredentialRequest>;

/** Told once, and kept nowhere. */
export const NewCredential = Type.Object(
  {
    credential: Type.Unsafe<Credential>({ $ref: 'Credential#' }),
    token: Type.Optional(Type.String()),
    certificate: Type.Optional(Type.String({ description: 'PEM' })),
    key: Type.Optional(Type.String({ description: 'PEM' })),
  },
  { $id: 'NewCredential' },
);
export type NewCredential = Static<typeof NewCredential>;
