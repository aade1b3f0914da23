/**
 * The process that sums a file, started by file-sum-process.ts: told what to read by its only argument, it writes records
 * of `RECORD_BYTES` to standard output. It is nobody's but its parent's, who may end it at any time.
 */
import { StasisError } from '../errors.ts';
import { fromStored } from '../stored.ts';
import { readPieces, type PiecesRequest } from './file-pieces.ts';
import { record, RECORD } from './file-sum-records.ts';

try {
  await readPieces(fromStored<PiecesRequest>(process.argv[2] ?? ''), {
    onSize: (sizeBytes) => write(record(RECORD.size, sizeBytes)),
    onPiece: (index, sha256) => write(record(RECORD.piece, index, sha256)),
    onSkipped: (nextPiece) => write(record(RECORD.skipped, nextPiece)),
  });
} catch (error) {
  process.stderr.write(JSON.stringify(StasisError.from(error)));
  process.exitCode = 1;
}

function write(bytes: Buffer): void {
  process.stdout.write(bytes);
}
