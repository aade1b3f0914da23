/** How long saves took and the guest stood still for them, image by image. */
import type { GuestOverview, Image, Operation } from '../api/schemas.ts';
import { formatDate, formatDuration } from '../units.ts';
import { Age, Empty } from './common.tsx';

const HEIGHT_PX = 120;
const BAR_PX = 14;
const GAP_PX = 6;
const SHOWN = 60;

export function HistoryView({ overview: { images, operations } }: { overview: GuestOverview }) {
  const latest = images.toSorted((a, b) => a.createdAt.localeCompare(b.createdAt)).slice(-SHOWN);
  const live = latest.filter(({ pauseMs }) => pauseMs !== null);
  return (
    <div class="history">
      <section>
        <h2>Pause of live saves</h2>
        <Bars
          images={live}
          value={({ pauseMs }) => pauseMs ?? 0}
          expected={({ predictedPauseMs }) => predictedPauseMs}
          what="pause"
        />
        <p class="muted legend">
          bars: how long it stood still · <span class="mark-sample" aria-hidden="true" /> what was predicted
        </p>
      </section>
      <section>
        <h2>Time to save</h2>
        <Bars images={latest} value={({ saveMs }) => saveMs} expected={() => null} what="save" />
      </section>
      <section>
        <h2>Operations</h2>
        <Operations operations={operations} />
      </section>
    </div>
  );
}

interface BarsProps {
  readonly images: readonly Image[];
  readonly value: (image: Image) => number;
  readonly expected: (image: Image) => number | null;
  readonly what: string;
}

function Bars({ images, value, expected, what }: BarsProps) {
  if (images.length === 0) return <p class="muted">None yet.</p>;
  const most = Math.max(...images.map((image) => Math.max(value(image), expected(image) ?? 0)), 1);
  const heightOf = (ms: number) => Math.max(2, (ms / most) * HEIGHT_PX);
  const width = images.length * (BAR_PX + GAP_PX);
  const values = images.map(value).toSorted((a, b) => a - b);
  const median = values[Math.floor(values.length / 2)] ?? 0;
  return (
    <figure class="chart">
      <figcaption>
        median <strong>{formatDuration(median)}</strong>, longest{' '}
        <strong>{formatDuration(values.at(-1) ?? 0)}</strong>
      </figcaption>
      <div class="chart-scroll" tabIndex={0} role="group" aria-label={`Chart: ${what} of each image`}>
        <svg
          width={width}
          height={HEIGHT_PX}
          role="img"
          aria-label={`${what} of ${images.length} images: median ${formatDuration(median)}, longest ${formatDuration(values.at(-1) ?? 0)}`}
        >
          {images.map((image, index) => {
            const x = index * (BAR_PX + GAP_PX);
            const predicted = expected(image);
            return (
              <g key={image.name}>
                <title>{`${image.name}, ${formatDate(image.createdAt)}: ${formatDuration(value(image))}`}</title>
                <rect
                  class={`bar ${image.method}`}
                  x={x}
                  y={HEIGHT_PX - heightOf(value(image))}
                  width={BAR_PX}
                  height={heightOf(value(image))}
                  rx={2}
                />
                {predicted !== null && (
                  <rect
                    class="mark"
                    x={x - 2}
                    y={HEIGHT_PX - heightOf(predicted) - 1}
                    width={BAR_PX + 4}
                    height={2}
                  />
                )}
              </g>
            );
          })}
        </svg>
      </div>
    </figure>
  );
}

function Operations({ operations }: { operations: readonly Operation[] }) {
  if (operations.length === 0) return <Empty title="Nothing was done yet" />;
  return (
    <table class="operations">
      <thead>
        <tr>
          <th scope="col">What</th>
          <th scope="col">Outcome</th>
          <th scope="col">Began</th>
          <th scope="col">Took</th>
        </tr>
      </thead>
      <tbody>
        {operations.map((operation) => (
          <tr key={operation.id}>
            <th scope="row">
              {operation.kind} {operation.image}
            </th>
            <td data-label="Outcome" class={operation.state === 'failed' ? 'bad' : ''}>
              {operation.error?.message ?? operation.state}
            </td>
            <td data-label="Began" class="muted">
              <Age at={operation.createdAt} />
            </td>
            <td data-label="Took" class="number">
              {operation.finishedAt === null
                ? '…'
                : formatDuration(Date.parse(operation.finishedAt) - Date.parse(operation.createdAt))}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
