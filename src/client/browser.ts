/**
 * Stasis for pages: the same calls as under Node, by `fetch`. The page comes from where the API is answered: `stasis web`, or
 * a daemon that other machines reach by HTTPS.
 *
 * @module
 */
export { PageClient } from './page-client.ts';
export type { AuditFilter, EventFilter, News } from './event-stream.ts';
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
  Event,
  EventsOverview,
  Guest,
  GuestOverview,
  HostCheckRequest,
  HostOverview,
  Image,
  Operation,
  Overview,
  Policy,
  RestoreRequest,
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
