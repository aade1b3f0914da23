/** The guest's screen: VNC, which noVNC draws and types into. */
import RFB from '@novnc/novnc';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Guest } from '../api/schemas.ts';
import { Empty } from './common.tsx';
import { client } from './store.ts';

export function ScreenView({ guest }: { guest: Guest }) {
  const place = useRef<HTMLDivElement>(null);
  const display = useRef<RFB>(null);
  const [isOpen, setOpen] = useState(false);
  const [attempt, setAttempt] = useState(0);
  const { name, pid } = guest;
  const hasDisplay = hasVnc(guest.definition);
  useEffect(() => {
    if (place.current === null || pid === null || !hasDisplay) return undefined;
    const rfb = new RFB(place.current, client.socketUrl(name, 'display'), { shared: true });
    rfb.scaleViewport = true;
    rfb.background = 'transparent';
    let isShown = true; // what a display that was let go of tells is no news of the next one
    rfb.addEventListener('connect', () => isShown && setOpen(true));
    rfb.addEventListener('disconnect', () => isShown && setOpen(false));
    display.current = rfb;
    return () => {
      isShown = false;
      setOpen(false);
      rfb.disconnect();
    };
  }, [name, pid, hasDisplay, attempt]);
  if (!hasDisplay) {
    return (
      <Empty title="This guest has no VNC display">
        <p>
          Define it with <code>graphics: vnc</code>. Its serial console is beside.
        </p>
      </Empty>
    );
  }
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
        <button type="button" disabled={!isOpen} onClick={() => display.current?.sendCtrlAltDel()}>
          Ctrl-Alt-Del
        </button>
      </div>
      <div class="screen" ref={place} />
    </section>
  );
}

/** A definition says `graphics: vnc`, or `graphics: {type: vnc, port: …}`. */
function hasVnc(definition: unknown): boolean {
  if (!isObject(definition)) return false;
  const graphics = definition['graphics'];
  return graphics === 'vnc' || (isObject(graphics) && graphics['type'] === 'vnc');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
