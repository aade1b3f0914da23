/**
 * JSON from the daemon as the type that the contract promises: the one place that trusts it. Both ends are typed
 * from the same schemas and the daemon checks what it sends, so a client needn't carry a schema library.
 *
 * @throws `SyntaxError` when it isn't JSON
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names what the contract promises
export function parseWire<T>(text: string): T {
  return JSON.parse(text);
}
