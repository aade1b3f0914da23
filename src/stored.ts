/**
 * Reads back a JSON document that Stasis itself wrote into its catalog. The type is the writer's word: nobody else
 * writes there, and documents from outside go through their own strict readers.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
export function fromStored<T>(json: string): T {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return JSON.parse(json) as T;
}
