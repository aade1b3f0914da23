import type { DefinitionInput } from '../guests/definition.ts';

/** What a domain becomes: input of `define`. */
export type DomainDefinition = Omit<DefinitionInput, 'firmware'> & {
  firmware?: { type: 'uefi'; secureBoot: boolean; vars?: string };
  tpm?: boolean;
};
