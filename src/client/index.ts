/**
 * Stasis for programs.
 *
 * ```ts
 * import { StasisClient, StasisError } from 'stasis';
 *
 * const stasis = new StasisClient(); // STASIS_CONNECT, else the user's session daemon
 *
 * const image = await stasis.createSaveImage('web1', { name: 'before-update', live: true });
 * console.log(`paused for ${image.pauseMs} ms`);
 *
 * try {
 *   await updateTheServer();
 * } catch {
 *   await stasis.restoreSaveImage('web1', 'before-update', { delete: true });
 * }
 * ```
 *
 * @module
 */
export { StasisClient, type ClientOptions } from './stasis-client.ts';
export { formatEndpoint, parseEndpoint, type Endpoint } from './connect.ts';
export type { HeldExport } from './disk-export.ts';
export type { AuditFilter, EventFilter } from './event-stream.ts';
export type { Revive } from './reconnection.ts';
export type {
  CallOptions,
  ChangeOptions,
  Loose,
  NotWaiting,
  Outcome,
  RestoreOptions,
  SaveOptions,
  VerifyOptions,
  Waiting,
} from './requests.ts';
export { DEFAULT_IMAGE } from '../api/constants.ts';
export type {
  AuditEntry,
  AuditVerdict,
  CatalogBackup,
  DiskExport,
  DiskTree,
  Doctor,
  Event,
  EventsOverview,
  Guest,
  GuestDisk,
  GuestOverview,
  GuestState,
  HostCheck,
  HostCheckRequest,
  HostOverview,
  HostStatus,
  Image,
  ImageState,
  Operation,
  OperationKind,
  OperationState,
  Overview,
  Policy,
  Readiness,
  RestoreRequest,
  SaveAllPlan,
  SavePrediction,
  SaveRequest,
  VerifyRequest,
} from '../api/schemas.ts';
export type { Principal } from '../api/remote.ts';
export type { RetentionChange, ScheduleChange } from '../api/schedules.ts';
export {
  ERRORS,
  StasisError,
  type ErrorBody,
  type ErrorCode,
  type ErrorContext,
  type ErrorDetails,
} from '../errors.ts';
