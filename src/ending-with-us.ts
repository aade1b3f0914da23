/**
 * What a program is started by so that the kernel ends it with us, however we end: one that lives on could hold files
 * locked, or wait for ever. setpriv(1), in util-linux.
 */
export const ENDING_WITH_US = ['setpriv', '--pdeathsig', 'KILL'] as const;
