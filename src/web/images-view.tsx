/** The image tree, and the image that was chosen in it. */
import { signal } from '@preact/signals';
import { useMemo, useRef } from 'preact/hooks';
import type { Guest, GuestOverview, Image } from '../api/schemas.ts';
import { formatBytes, formatDate, formatDuration, formatGain } from '../units.ts';
import { Age, Empty, Fields, RoleButton } from './common.tsx';
import { openDialog } from './dialog.tsx';
import { CloneDialog, DeleteDialog, ProtectDialog, RestoreDialog } from './image-dialogs.tsx';
import { mannerOf, soundnessOf } from './image-facts.ts';
import { layOutTree, type TreeLayout, type TreeRow } from './image-tree.ts';
import { client, may, running } from './store.ts';

const ROW_PX = 60;
const LANE_PX = 18;
const MARGIN_PX = 14;

/** by guest: one comes back to what one looked at */
const chosen = signal<ReadonlyMap<string, string>>(new Map());

export function ImagesView({ overview: { guest, images } }: { overview: GuestOverview }) {
  const layout = useMemo(() => layOutTree(images, guest.currentImage), [images, guest.currentImage]);
  if (images.length === 0) return <NoImages guest={guest} />;
  const name = chosen.value.get(guest.name);
  const image = images.find((one) => one.name === name);
  return (
    <div class={`images ${image === undefined ? '' : 'with-details'}`}>
      <Tree guest={guest} layout={layout} chosenName={image?.name} />
      <section class="details" aria-label="Chosen image">
        {image === undefined ? (
          <p class="muted hint">
            Choose an image to see what it holds, to go back to it, to clone or delete it.
          </p>
        ) : (
          <Details guest={guest} image={image} images={images} />
        )}
      </section>
    </div>
  );
}

function choose(guest: string, image: string | undefined): void {
  const next = new Map(chosen.value);
  if (image === undefined) next.delete(guest);
  else next.set(guest, image);
  chosen.value = next;
}

function Tree({
  guest,
  layout,
  chosenName,
}: {
  guest: Guest;
  layout: TreeLayout;
  chosenName: string | undefined;
}) {
  const list = useRef<HTMLOListElement>(null);
  const width = MARGIN_PX * 2 + (layout.lanes - 1) * LANE_PX;
  const step = (event: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by === undefined) return;
    const buttons = [...(list.current?.querySelectorAll('button') ?? [])];
    const at = buttons.findIndex((button) => button === document.activeElement);
    buttons[at + by]?.focus();
    event.preventDefault();
  };
  return (
    <ol class="tree" ref={list} onKeyDown={step} aria-label={`Images of ${guest.name}, newest first`}>
      <Lines layout={layout} width={width} />
      {layout.rows.map((row) => (
        <li key={row.image?.name ?? ''} style={{ height: `${ROW_PX}px`, paddingLeft: `${width}px` }}>
          {row.image === null ? (
            <Present guest={guest} />
          ) : (
            <ImageRow guest={guest} image={row.image} isChosen={row.image.name === chosenName} />
          )}
        </li>
      ))}
    </ol>
  );
}

/** The lines and dots of the whole tree, for the eye only: each row says in words what it derives from. */
function Lines({ layout, width }: { layout: TreeLayout; width: number }) {
  const height = layout.rows.length * ROW_PX;
  return (
    <svg class="lines" width={width} height={height} viewBox={`0 0 ${width} ${height}`} aria-hidden="true">
      {layout.rows.map((row, index) => {
        const parent = row.parentRow === null ? undefined : layout.rows[row.parentRow];
        return parent === undefined ? null : (
          <path
            key={index}
            class={`lane${row.lane % 4} ${row.image === null ? 'present' : ''}`}
            d={lineBetween(row, index, parent, row.parentRow ?? 0)}
          />
        );
      })}
      {layout.rows.map((row, index) => (
        <circle
          key={index}
          class={`lane${row.lane % 4} ${row.image === null ? 'present' : row.image.state}`}
          cx={xOf(row)}
          cy={yOf(index)}
          r={row.image === null ? 6 : 5}
        />
      ))}
    </svg>
  );
}

function lineBetween(child: TreeRow, childRow: number, parent: TreeRow, parentRow: number): string {
  const [fromX, fromY, toX, toY] = [xOf(child), yOf(childRow), xOf(parent), yOf(parentRow)];
  if (fromX === toX) return `M${fromX} ${fromY}V${toY}`;
  const bend = Math.min(ROW_PX, toY - fromY);
  const half = bend / 2;
  return `M${fromX} ${fromY}V${toY - bend}C${fromX} ${toY - half} ${toX} ${toY - half} ${toX} ${toY}`;
}

function xOf({ lane }: TreeRow): number {
  return MARGIN_PX + lane * LANE_PX;
}

function yOf(row: number): number {
  return row * ROW_PX + ROW_PX / 2;
}

function Present({ guest: { currentImage, state } }: { guest: Guest }) {
  return (
    <div class="present-row">
      <strong>Now</strong>
      <span class="muted">
        {state}, {currentImage === null ? 'from no image' : `from ${currentImage}`}
      </span>
    </div>
  );
}

function ImageRow({ guest, image, isChosen }: { guest: Guest; image: Image; isChosen: boolean }) {
  const { name, createdAt, description, storedBytes, state, verifiedAt, current, screenFile, parent } = image;
  return (
    <button
      type="button"
      class="image-row"
      aria-pressed={isChosen}
      onClick={() => choose(guest.name, isChosen ? undefined : name)}
    >
      {screenFile !== null && may('operator') && (
        <img class="thumb" loading="lazy" alt="" src={client.screenUrl(guest.name, name, createdAt)} />
      )}
      <span class="what">
        <span class="name">
          <span title={name}>{name}</span>
          {current && <span class="tag now">now</span>}
          {state === 'broken' && <span class="tag broken">broken</span>}
          {image.protected && <span class="tag protected">protected</span>}
          {verifiedAt !== null && (
            <span class="tag verified" title={`verified ${formatDate(verifiedAt)}`}>
              verified
            </span>
          )}
        </span>
        <span class="muted about">
          <Age at={createdAt} />
          {description !== '' && ` · ${description}`}
        </span>
        {parent !== null && <span class="hidden">, from {parent}</span>}
      </span>
      <span class="figures">
        <span>{formatBytes(storedBytes)}</span>
        <span class="muted">{mannerOf(image)}</span>
      </span>
    </button>
  );
}

function Details({ guest, image, images }: { guest: Guest; image: Image; images: readonly Image[] }) {
  const { name, screenFile, createdAt, description } = image;
  const children = images.filter(({ parent }) => parent === name).length;
  const busy = running.value.has(guest.name);
  return (
    <>
      <div class="details-head">
        <h2>{name}</h2>
        <button type="button" class="plain" aria-label="Close" onClick={() => choose(guest.name, undefined)}>
          ×
        </button>
      </div>
      {screenFile !== null && may('operator') && (
        <img
          class="screen-shot"
          alt={`The screen of ${guest.name} when ${name} was taken`}
          src={client.screenUrl(guest.name, name, createdAt)}
        />
      )}
      {description !== '' && <p>{description}</p>}
      <div class="buttons">
        <RoleButton
          class="primary"
          disabled={busy || image.state !== 'ready'}
          onClick={() => openDialog(<RestoreDialog guest={guest} image={image} />)}
        >
          Restore…
        </RoleButton>
        <RoleButton
          disabled={busy || image.state !== 'ready'}
          onClick={() => openDialog(<CloneDialog guest={guest} image={image} />)}
        >
          Clone…
        </RoleButton>
        <RoleButton disabled={busy} onClick={() => openDialog(<ProtectDialog guest={guest} image={image} />)}>
          {image.protected ? 'Unprotect…' : 'Protect…'}
        </RoleButton>
        <RoleButton
          disabled={busy || image.protected}
          onClick={() => openDialog(<DeleteDialog guest={guest} image={image} children={children} />)}
        >
          Delete…
        </RoleButton>
      </div>
      <Fields
        of={[
          ['Taken', formatDate(createdAt)],
          ['From', image.parent ?? 'no image'],
          ['By schedule', image.schedule ?? 'none'],
          ['Stored', formatBytes(image.storedBytes)],
          ['Deleting frees', formatGain(image)],
          ['Memory', formatBytes(image.memoryBytes)],
          ['Disks', image.disks.map((disk) => `${disk.name} ${formatBytes(disk.storedBytes)}`).join(', ')],
          ['Captured', `${image.method}, ${image.live ? 'live' : 'guest stopped'}`],
          ['Pause', pauseOf(image)],
          ['Save took', formatDuration(image.saveMs)],
          ['Restored', `${image.restoredCount} times`],
          ['Verified', soundnessOf(image)],
          ['QEMU', `${image.qemuVersion.split(' ')[0] ?? ''}, ${image.machine}`],
        ]}
      />
    </>
  );
}

function pauseOf({ pauseMs, predictedPauseMs }: Image): string {
  if (pauseMs === null) return 'it was to stop anyway';
  const expected = predictedPauseMs === null ? '' : ` (${formatDuration(predictedPauseMs)} predicted)`;
  return formatDuration(pauseMs) + expected;
}

function NoImages({ guest }: { guest: Guest }) {
  return (
    <Empty title="No images yet">
      <p>
        {guest.state === 'running'
          ? 'A live save keeps memory, devices and disks at one instant, and the guest hardly notices.'
          : 'Start the guest, then save it: memory, devices and disks at one instant.'}
      </p>
    </Empty>
  );
}
