/** Quantities are written alike by the command line and the page. */
export * from '../units.ts';
