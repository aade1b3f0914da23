/** Direct boot of a kernel. */
import { resolve } from 'node:path';
import Type, { type Static } from 'typebox';
import { strict } from './schema.ts';

export const BootInput = Type.Object(
  {
    kernel: Type.String({ minLength: 1 }),
    initrd: Type.Optional(Type.String({ minLength: 1 })),
    cmdline: Type.Optional(Type.String()),
  },
  strict,
);

export interface Boot {
  readonly kernel: string;
  readonly initrd?: string;
  readonly cmdline: string;
}

/** @param directory what relative paths are relative to */
export function pinBoot(boot: Static<typeof BootInput>, directory: string): Boot {
  return {
    kernel: resolve(directory, boot.kernel),
    ...(boot.initrd === undefined ? {} : { initrd: resolve(directory, boot.initrd) }),
    cmdline: boot.cmdline ?? '',
  };
}
