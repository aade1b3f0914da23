/** The guest's serial console, in a terminal. */
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
// oxlint-disable-next-line import/no-unassigned-import -- a style sheet
import '@xterm/xterm/css/xterm.css';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Guest } from '../api/schemas.ts';
import { client } from './store.ts';

export function ConsoleView({ guest }: { guest: Guest }) {
  const place = useRef<HTMLDivElement>(null);
  const [isOpen, setOpen] = useState(false);
  const [attempt, setAttempt] = useState(0);
  const { name, pid } = guest;
  // A restored guest is another process: its line is opened anew.
  useEffect(() => {
    if (place.current === null || pid === null) return undefined;
    return attach(place.current, client.socketUrl(name, 'console'), setOpen);
  }, [name, pid, attempt]);
  return (
    <section class="terminal">
      <div class="terminal-bar">
        <span role="status">
          {pid === null ? 'the guest is off' : isOpen ? 'connected' : 'not connected'}
        </span>
        {pid !== null && !isOpen && (
          <button type="button" onClick={() => setAttempt(attempt + 1)}>
            Connect
          </button>
        )}
        <span class="muted">Shift-Tab leaves the terminal</span>
      </div>
      <div class="console" ref={place} />
    </section>
  );
}

/** @returns how to let go of it */
function attach(place: HTMLElement, url: string, onOpen: (isOpen: boolean) => void): () => void {
  const terminal = new Terminal({
    convertEol: false,
    cursorBlink: true,
    fontSize: 13,
    scrollback: 5000,
    screenReaderMode: true,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.attachCustomKeyEventHandler((event) => !(event.key === 'Tab' && event.shiftKey));
  terminal.open(place);
  fit.fit();
  const sizes = new ResizeObserver(() => fit.fit());
  sizes.observe(place);
  const socket = new WebSocket(url);
  const gone = new AbortController(); // what a line that was let go of tells is no news of the next one
  const { signal } = gone;
  socket.binaryType = 'arraybuffer';
  const encoder = new TextEncoder();
  terminal.onData((text) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
  });
  const onConnected = () => {
    onOpen(true);
    terminal.focus();
  };
  const onMessage = ({ data }: MessageEvent<ArrayBuffer>) => terminal.write(new Uint8Array(data));
  socket.addEventListener('open', onConnected, { signal });
  socket.addEventListener('message', onMessage, { signal });
  socket.addEventListener('close', () => onOpen(false), { signal });
  return () => {
    gone.abort();
    onOpen(false);
    sizes.disconnect();
    socket.close();
    terminal.dispose();
  };
}
