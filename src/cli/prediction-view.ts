/** What a live save would cost a guest, as a person reads it before deciding. */
import type { SavePrediction } from '../api/schemas.ts';
import { renderFields } from './fields.ts';
import { renderTable, type Column } from './table.ts';
import { count, formatBytes, formatDuration } from './units.ts';

const COLUMNS: readonly Column[] = [
  { title: 'METHOD' },
  { title: 'PAUSE', align: 'right' },
  { title: 'TAKES', align: 'right' },
  { title: 'WRITES', align: 'right' },
  { title: 'REMARK', flexible: true },
];

export function renderPrediction(prediction: SavePrediction, width: number): string[] {
  const { guest, method, memoryBytes, residentBytes, hostPageBytes, dirtyBytesPerSecond, disks } = prediction;
  const memory = `${formatBytes(memoryBytes)} in pages of ${formatBytes(hostPageBytes)}, ${formatBytes(residentBytes)} to write`;
  return [
    ...renderFields([
      ['guest', guest, 'bold'],
      ['memory', memory],
      ['dirties', `${formatBytes(dirtyBytesPerSecond)} a second`],
      ['disks', [String(disks), ...prediction.copies.map(describeCopy)].join(', ')],
    ]),
    '',
    ...renderTable(
      COLUMNS,
      prediction.methods.map((each) => methodRow(each, method)),
      width,
    ),
    '',
    method === null || prediction.predictedPauseMs === null
      ? `${guest} stands still already: a live save doesn't pause it`
      : `a live save would use ${method} and pause ${guest} for about ${formatDuration(prediction.predictedPauseMs)}; nothing was saved`,
  ];
}

function describeCopy({ disk, driver, copyMs, copied }: SavePrediction['copies'][number]): string {
  const time = `${formatDuration(copyMs)} for a ${driver} copy`;
  return copied ? `${disk} ${time}` : `${disk} an overlay instead of ${time}`;
}

type Method = SavePrediction['methods'][number];

function methodRow(each: Method, chosen: string | null): string[] {
  const { method, predictedPauseMs, predictedSaveMs, predictedBytes } = each;
  return [
    method === chosen ? `${method} ✔` : method,
    formatDuration(predictedPauseMs),
    formatDuration(predictedSaveMs),
    formatBytes(predictedBytes),
    remark(each),
  ];
}

function remark({ obstacle, basedOn }: Method): string {
  if (obstacle !== null) return obstacle;
  return basedOn === 0 ? 'by the model alone' : `corrected by ${count(basedOn, 'earlier save')}`;
}
