/** The words that all of QEMU's devices are told in. */

export function socketChardev(id: string, path: string): string[] {
  return ['-chardev', `socket,id=${id},path=${path},server=on,wait=off`];
}

export function device(properties: Record<string, unknown>): string[] {
  return ['-device', JSON.stringify(properties)];
}
