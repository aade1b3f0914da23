/** The page: trades the link's secret for a session, then shows what the address says. */
import { render } from 'preact';
import { App } from './app.tsx';
import { followDaemon, tradeLink } from './store.ts';

const root = document.getElementById('app');
if (root === null) throw new Error('index.html has no #app');
render(<App />, root);
await tradeLink();
followDaemon();
