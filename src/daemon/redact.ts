/** What is a secret by its name is neither logged nor kept in the audit trail. */
const SECRET = /pass(word|phrase|wd)?$|secret|token|authorization|cookie|credential|private_?key/i;
const CENSORED = '[redacted]';
/** In the arguments of a kernel or of QEMU: `password=…`. A quote ends it too, since the text may be JSON. */
const SECRET_ARGUMENT = /((?:password|passwd|passphrase|secret|token)=)[^\s,&"\\]+/gi;
/** Deeper than any document of ours. */
const MAX_DEPTH = 20;

/** The same with what is secret by its name replaced; errors and other things with a class of their own are left as they are. */
export function redacted(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return redactedText(value);
  if (value === null || typeof value !== 'object' || depth > MAX_DEPTH) return value;
  if (Array.isArray(value)) return value.map((element) => redacted(element, depth + 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      SECRET.test(key) && inner !== null && typeof inner !== 'boolean'
        ? CENSORED
        : redacted(inner, depth + 1),
    ]),
  );
}

export function redactedText(text: string): string {
  return text.replaceAll(SECRET_ARGUMENT, `$1${CENSORED}`);
}
