/** Who a request is from, as far as that decides what it may do. */
import { ROLES, type Role } from '../api/constants.ts';
import type { Principal } from '../api/remote.ts';

/** Whether a role includes another one. */
export function includesRole(role: Role, wanted: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(wanted);
}

/** Whether a guest is there for somebody: what isn't is not even named to them. */
export function sees(
  { labels }: Pick<Principal, 'labels'>,
  guest: { readonly labels?: readonly string[] },
): boolean {
  return labels === null || (guest.labels ?? []).some((label) => labels.includes(label));
}
