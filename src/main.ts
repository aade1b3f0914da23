/** The program's one entry: `stasis daemon` is the daemon, everything else the command line that talks to it. */
if (process.argv[2] === 'daemon') {
  const { main } = await import('./daemon/main.ts');
  await main(process.argv.slice(3));
} else {
  const { main } = await import('./cli/main.ts');
  await main(process.argv.slice(2));
}
