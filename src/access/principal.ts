/** Who a request is from, as far as that decides what it may do. */
import { ROLES, type Role } from '../api/constants.ts';

export interface Principal {
  /** for messages and the audit trail: a user of this host, or a credential */
  readonly name: string;
  readonly role: Role;
  /** only guests with one of these labels are there for it; null: all */
  readonly labels: readonly string[] | null;
}

/** Whether a role includes another one. */
export function includesRole(role: Role, wanted: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(wanted);
}

/** Whether a guest is there for somebody: what isn't is not even named to them. */
export function sees({ labels }: Principal, guest: { readonly labels?: readonly string[] }): boolean {
  return labels === null || (guest.labels ?? []).some((label) => labels.includes(label));
}
