/**
 * All that reads bytes which somebody else wrote. Each either gives a value or refuses with a typed error: a `StasisError`, or
 * one that its caller turns into one. Where there is more to hold than that, it is held: what is cut into other pieces reads the
 * same, what is read lies within its file.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import { InvalidArgumentError } from 'commander';
import { PNG } from 'pngjs';
import Value from 'typebox/value';
import { isSecret, readToken } from '../../src/access/token.ts';
import { ScheduleRequest } from '../../src/api/schedules.ts';
import { duration, longDuration, positiveNumber, sizeOrNone, wholeNumber } from '../../src/cli/arguments.ts';
import { parseDefinition } from '../../src/cli/definition-file.ts';
import { remotesIn } from '../../src/cli/remotes.ts';
import { parseEndpoint } from '../../src/client/connect.ts';
import { watch } from '../../src/client/event-stream.ts';
import { sendForJson, type Transport } from '../../src/client/exchange.ts';
import { runOperation } from '../../src/client/operation-stream.ts';
import { SseParser } from '../../src/client/sse.ts';
import { checkIdentity } from '../../src/daemon/remote.ts';
import { parseSettings } from '../../src/daemon/settings.ts';
import { channelAt } from '../../src/daemon/upgrades.ts';
import { StasisError } from '../../src/errors.ts';
import { commandLine } from '../../src/guests/command-line.ts';
import { pinDefinition, readUpkeep, type HostChoices } from '../../src/guests/definition.ts';
import { readReaderRecord } from '../../src/guests/disk-readers.ts';
import { specOf, whyNotSchedule } from '../../src/guests/schedules.ts';
import { pngOf, readPpm } from '../../src/images/png.ts';
import { readDomain } from '../../src/libvirt/domain.ts';
import { loadProblems, parseFormats } from '../../src/qemu/build/vmstate.ts';
import { AgentReplies, parseAgentReply } from '../../src/qemu/guest-agent.ts';
import { readMemoryFile } from '../../src/qemu/memory/memory-file.ts';
import { PAGE_BYTES } from '../../src/qemu/memory/migration-stream.ts';
import { PageLedger } from '../../src/qemu/pager/page-ledger.ts';
import { ReturnPath } from '../../src/qemu/pager/postcopy-stream.ts';
import { QmpClient } from '../../src/qemu/qmp/client.ts';
import { readVolumes } from '../../src/storage/lvm-volumes.ts';
import { announcesShutdown } from '../../src/systemd/shutdown-notice.ts';
import { timetable } from '../../src/timetable.ts';
import { imageReport, firmware, metrics } from './local-targets.ts';
import { qemuAnswers } from './qemu-answers.ts';
import { isTyped, pieces, text, type Target } from './target.ts';
import { webSocket } from './web-socket.ts';

// -------------------------------------------------------------------------------------------- what people write

/** A host that has everything. */
const HOST: HostChoices = {
  resolveMachine: (machine) => Promise.resolve(machine === 'q35' ? 'pc-q35-10.0' : machine),
  resolveAccelerator: (wanted) => Promise.resolve(wanted === 'kvm' ? 'kvm' : 'tcg'),
  resolveFirmware: ({ secureBoot }) =>
    Promise.resolve({
      firmware: {
        ...{ type: 'uefi', secureBoot, smm: secureBoot },
        code: { path: '/fw/code', format: 'raw' },
        template: { path: '/fw/vars', format: 'raw' },
      },
      store: { name: 'uefi-vars', path: '/own/vars', format: 'raw', bus: 'pflash', readonly: false },
    }),
};

/** A definition that is accepted is also a machine. */
async function define(input: unknown): Promise<void> {
  const definition = await pinDefinition(input, '/srv/vms', HOST);
  readUpkeep(input, definition.uuid);
  const args = commandLine(definition, { chains: new Map() });
  assert.ok(args.every((arg) => typeof arg === 'string' && arg !== 'undefined' && arg !== 'NaN'));
}

const definition: Target = {
  name: 'definition',
  reads: "a guest's definition in YAML or JSON, up to QEMU's command line",
  syntax: 'json',
  words: [
    ...['name: ', 'memory: ', '2GiB', 'cpus: ', 'disks: ', 'path', 'bus', 'virtio', 'scsi', 'networks: '],
    ...[
      '&a ',
      '*a',
      '<<: ',
      '!!binary ',
      '!!set ',
      '? ',
      '- ',
      '{',
      '}',
      '[',
      ']',
      '|\n',
      '>\n',
      '---\n',
      '%YAML 1.1',
    ],
    ...['firmware', 'uefi', 'controllers', 'address', 'schedules', 'cron', 'retention', 'quota', 'timeZone'],
  ],
  handled: [],
  read: (input) => define(parseDefinition(text(input), 'guest.yaml')),
};

const settings: Target = {
  name: 'settings',
  reads: "the daemon's stasis.yaml",
  syntax: 'text',
  words: [
    ...[
      'disks:\n',
      'policy:\n',
      'checksums: ',
      'scrub:\n',
      'schedule: ',
      'timeZone: ',
      'minFree: ',
      'access:\n',
    ],
    ...['  ', '- ', '&a ', '*a', '<<: ', '{', '}', '[', ']', 'false', '0 3 * * 0', '50MiB', 'Europe/Berlin'],
  ],
  handled: [],
  read: (input) => void parseSettings(text(input), 'stasis.yaml'),
};

const domain: Target = {
  name: 'domain',
  reads: "a domain of libvirt's (XML), up to QEMU's command line",
  syntax: 'text',
  words: [
    ...[
      '<domain>',
      '</domain>',
      '<devices>',
      '<disk type="file">',
      '<target dev="vda" bus="virtio"/>',
      '<![CDATA[',
      ']]>',
    ],
    ...[
      '<!DOCTYPE x>',
      '&amp;',
      '&#0;',
      '&#x10FFFF;',
      '<qemu:arg value="x"/>',
      'xmlns:qemu="u"',
      '<?xml version="1.0"?>',
    ],
    ...[
      '<memory unit="KiB">',
      '<vcpu>',
      '<address type="pci"/>',
      'slot="0x1f"',
      'bus="0xff"',
      '<!--',
      '-->',
      'pcie-root-port',
    ],
  ],
  handled: [],
  read: async (input) => {
    const { definition: found } = await readDomain(text(input), 'guest.xml');
    await define(found);
  },
};

const cron: Target = {
  name: 'cron',
  reads: 'a cron expression, and after a line feed a time zone',
  syntax: 'text',
  words: [
    '*',
    '*/5',
    '1-5',
    'L',
    'W',
    '#2',
    '?',
    'FEB',
    'MON',
    '@daily',
    '30 2',
    '29 2',
    '31',
    '\n',
    'UTC',
    'Europe/Berlin',
    'Africa/Monrovia',
  ],
  handled: [],
  read: (input) => {
    const [expression = '', timeZone] = text(input).split('\n');
    const nowMs = Date.UTC(2026, 1, 1);
    const request = { name: 's', cron: expression, ...(timeZone === undefined ? {} : { timeZone }) };
    if (!Value.Check(ScheduleRequest, request)) return;
    const spec = specOf(request);
    if (whyNotSchedule('s', spec, nowMs) !== undefined) return;
    const times = timetable(spec);
    const [last, next] = [times.last(nowMs), times.next(nowMs)];
    assert.ok((last === null || last <= nowMs) && (next === null || next > nowMs));
  },
};

const values: Target = {
  name: 'values',
  reads: "values of the command line's options, and addresses of daemons",
  syntax: 'text',
  words: [
    '1',
    '9'.repeat(400),
    '.',
    '1.5',
    'GiB',
    'K',
    'min',
    'h',
    'y',
    'none',
    'unix:',
    'https://',
    '[::1]',
    ':8442',
    '%00',
    '@',
  ],
  handled: [InvalidArgumentError],
  read: (input) => {
    const refused: unknown[] = [];
    for (const read of [duration, longDuration, positiveNumber, sizeOrNone, wholeNumber, parseEndpoint]) {
      try {
        const value = read(text(input));
        assert.ok(typeof value !== 'number' || Number.isFinite(value));
      } catch (error) {
        refused.push(error);
      }
    }
    for (const error of refused) if (!isTyped(error, values)) throw error;
  },
};

// ------------------------------------------------------------------------------------------ what QEMU and guests say

const qmp: Target = {
  name: 'qmp',
  reads: "QEMU's side of a QMP conversation",
  syntax: 'text',
  words: [
    ...[
      '{"return": {}, "id": 1}\r\n',
      '{"return": {}, "id": 2}\n',
      '{"error": {"class": "GenericError", "desc": "no"}, "id": 2}\n',
    ],
    ...[
      '{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\n',
      '"data": {}',
      '"id": ',
      'null',
      '[',
      '\n',
      '\\ud800',
    ],
  ],
  handled: [],
  read: async (input) => {
    const [ours, theirs] = duplexPair();
    theirs.on('error', () => undefined);
    theirs.resume();
    const conversation = converse(() => QmpClient.over(ours, { timeoutMs: 1000 }));
    for (const piece of pieces(input)) theirs.write(piece);
    theirs.end();
    await conversation;
    theirs.destroy();
  },
};

async function converse(connect: () => Promise<QmpClient>): Promise<void> {
  await using client = await connect();
  using stops = client.watch('STOP');
  const asked = [client.execute('query-status'), client.execute('query-version'), stops.next()];
  for (const answer of await Promise.allSettled(asked))
    if (answer.status === 'rejected' && !(answer.reason instanceof StasisError)) throw answer.reason;
  const end: unknown = await client.closed;
  assert.ok(end instanceof StasisError);
}

const agent: Target = {
  name: 'agent',
  reads: "a guest agent's side, which may be hostile",
  syntax: 'text',
  words: [
    '{"return": 1}\n',
    '{"return": {}}\n',
    '{"error": {"class": "x", "desc": "no"}}\n',
    '\n',
    'null',
    '[]',
    '"desc": 1',
  ],
  handled: [SyntaxError, RangeError],
  read: (input) => {
    const replies = new AgentReplies();
    // A sentinel is no text: written as one, mutations keep it.
    const bytes = Buffer.from(input.toString('latin1').replaceAll('<sentinel>', '\xff'), 'latin1');
    for (const piece of pieces(bytes)) for (const line of replies.push(piece)) parseAgentReply(line);
  },
};

const BLOCKS = [
  { id: 'pc.ram', sizeBytes: 1 << 20 },
  { id: 'vga.vram', sizeBytes: 256 << 10 },
];

const returnPath: Target = {
  name: 'return-path',
  reads: 'what QEMU tells its pager: pages that it asks for, pages that it has',
  syntax: 'binary',
  words: ['pc.ram', 'vga.vram', '\x06pc.ram', '\x00\x03', '\x00\x05', '\x00\x01\x00\x04'],
  handled: [],
  read: (input) => {
    const ledgers = new Map(
      BLOCKS.map((block) => {
        const present = Buffer.alloc(block.sizeBytes / PAGE_BYTES / 8, 0x5a);
        const layout = {
          pageSizeBytes: PAGE_BYTES,
          bitmapOffset: 0,
          pagesOffset: 0,
          pagesPresent: present.length * 4,
        };
        return [block.id, new PageLedger({ ...block, ...layout }, PAGE_BYTES, present)];
      }),
    );
    const path = new ReturnPath(BLOCKS);
    for (const piece of pieces(input)) {
      for (const reply of path.push(piece)) {
        if (reply.kind === 'received') ledgers.get(reply.block)?.markReceived(reply.bitmap);
        if (reply.kind === 'pages') {
          const ledger = ledgers.get(reply.block);
          assert.ok(ledger !== undefined);
          const first = reply.offset / PAGE_BYTES;
          assert.ok(first + reply.lengthBytes / PAGE_BYTES <= ledger.count);
          for (let page = first; page < first + reply.lengthBytes / PAGE_BYTES; page += 1) ledger.take(page);
        }
      }
    }
    for (const ledger of ledgers.values()) {
      const due = ledger.dueCount;
      assert.equal(ledger.takeDue(0, ledger.count).length, due);
    }
  },
};

const memoryFile: Target = {
  name: 'memory-file',
  reads: 'a memory file: configuration, blocks and bitmaps, device states',
  syntax: 'binary',
  words: [
    'QEVM',
    '\x05',
    'configuration/capabilities',
    'mapped-ram',
    'pc.ram',
    '\x00\x06',
    '{"devices":[]}',
    '\x7e',
  ],
  handled: [],
  read: async (input) => {
    await using scratch = await scratchFile();
    const { path, file } = scratch;
    // Pages are a megabyte apart: an input is what stands before and behind one hole, whose place and size it tells first.
    const [holeKib, head] = input.length < 4 ? [0, 0] : [input.readUInt16BE(0), input.readUInt16BE(2)];
    const bytes = input.subarray(4);
    await file.write(bytes.subarray(0, head), 0, undefined, 0);
    await file.write(bytes.subarray(head), 0, undefined, Math.min(head, bytes.length) + holeKib * 1024);
    const memory = await readMemoryFile(path, 0);
    const { size } = await file.stat();
    for (const { bitmapOffset, pagesOffset, sizeBytes, pagesPresent } of memory.blocks) {
      assert.ok(bitmapOffset < pagesOffset && pagesOffset + sizeBytes <= size);
      assert.ok(pagesPresent <= sizeBytes / PAGE_BYTES);
    }
    assert.ok(memory.devicesEnd <= memory.deviceStateEnd && memory.deviceStateEnd === size);
  },
};

const vmstate: Target = {
  name: 'vmstate',
  reads: "QEMU's -dump-vmstate, against the devices of an image",
  syntax: 'json',
  words: ['"name"', '"version_id"', '"minimum_version_id"', '"Subsections"', '"Fields"', '"Description"'],
  handled: [SyntaxError],
  read: (input) => {
    const formats = parseFormats(text(input));
    const states = [...formats.keys()].map((format) => ({
      name: format,
      format,
      version: 3,
      subsections: ['a/b'],
    }));
    const problems = loadProblems(states, formats, undefined);
    assert.ok(problems.every((problem) => typeof problem === 'string'));
  },
};

const screen: Target = {
  name: 'screen',
  reads: "a picture of a guest's screen (PPM), made a PNG",
  syntax: 'binary',
  words: ['P6\n', 'P5\n', ' 255\n', '0 0', '1 1', '99999 99999', '#'],
  handled: [],
  read: async (input) => {
    const picture = readPpm(input);
    const { width, height, data } = PNG.sync.read(await pngOf(picture));
    assert.deepEqual([width, height], [picture.width, picture.height]);
    const rgb = Buffer.from(data.filter((_byte, at) => at % 4 !== 3));
    assert.ok(rgb.equals(picture.pixels));
  },
};

// -------------------------------------------------------------------------------- what programs and files say

const lvm: Target = {
  name: 'lvm',
  reads: "the JSON report of LVM's lvs",
  syntax: 'json',
  words: ['"report"', '"lv"', '"lv_size"', '"12.5"', '"-1"', '"thin-pool"'],
  handled: [],
  read: (input) => {
    for (const { sizeBytes, metadataBytes, groupFreeBytes, used, tags } of readVolumes(text(input))) {
      assert.ok([sizeBytes, metadataBytes, groupFreeBytes, used ?? 0].every((number) => number >= 0));
      assert.ok(Array.isArray(tags));
    }
  },
};

const records: Target = {
  name: 'records',
  reads: 'small JSON files that are read back: readers of disks, known daemons, notices of a shutdown',
  syntax: 'json',
  words: ['"layers"', '"member"', '"PrepareForShutdown"', '"payload"', '"data"', '"https://a:1"'],
  handled: [],
  read: (input) => {
    const record = readReaderRecord(text(input));
    assert.ok(record === undefined || record.layers.every((layer) => typeof layer === 'string'));
    announcesShutdown(text(input));
    const remotes = remotesIn(text(input), 'remotes.json');
    for (const remote of Object.values(remotes)) assert.equal(typeof remote, 'object');
  },
};

const identity: Target = {
  name: 'identity',
  reads: 'a certificate and its key in PEM',
  syntax: 'text',
  words: [
    '-----BEGIN CERTIFICATE-----\n',
    '-----END CERTIFICATE-----\n',
    '-----BEGIN PRIVATE KEY-----\n',
    'MII',
    '=',
    '\n',
  ],
  handled: [],
  read: (input) => {
    const both = text(input);
    checkIdentity({ certificate: both, key: both });
  },
};

// ------------------------------------------------------------------------------------ what clients and daemons send

const channel: Target = {
  name: 'channel',
  reads: 'the address of a console or display, the `Upgrade` it comes with, and a token',
  syntax: 'text',
  words: [
    '/v1/guests/',
    '/console',
    '/display',
    '%2F',
    '%',
    '%ff',
    '%E2%82%AC',
    '\n',
    'websocket',
    'stasis-console',
    'stasis_',
  ],
  handled: [],
  read: (input) => {
    const [url = '', upgrade = '', bearer = ''] = text(input).split('\n');
    const token = readToken(bearer);
    if (token !== undefined) assert.equal(isSecret(token.secret, '0'.repeat(64)), false);
    const { guest, protocol } = channelAt(url, upgrade);
    assert.ok(guest !== '' && protocol !== '');
  },
};

const eventStream: Target = {
  name: 'event-stream',
  reads: 'server-sent events, cut anywhere',
  syntax: 'text',
  words: ['data: ', 'event: ', 'id: ', ': ', '\n\n', '\r\n', '\r', '\uFEFF', 'retry: 1', '\0'],
  handled: [],
  read: (input) => {
    const whole = new SseParser().push(text(input));
    const parser = new SseParser();
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const inPieces = pieces(input).flatMap((piece) => parser.push(decoder.decode(piece, { stream: true })));
    // Bytes that are no text at the end come out only when the stream ends: not in a message.
    assert.deepEqual(inPieces, whole);
  },
};

const daemonReply: Target = {
  name: 'daemon-reply',
  reads: 'what answers where a daemon is looked for: a status, a kind of content, its body',
  syntax: 'text',
  words: [
    '{"error": {"code": "busy", "message": "x"}}',
    'event: operation\n',
    'event: event\n',
    'data: {"id": "a", "state": "done"}\n\n',
    'data: null\n\n',
    '/v1/operations/x',
  ],
  handled: [],
  read: async (input) => {
    const body = input.subarray(2);
    const status = [200, 202, 404, 500][(input[0] ?? 0) % 4] ?? 200;
    const type = (input[1] ?? 0) % 2 === 0 ? 'text/event-stream' : 'application/json';
    const transport: Transport = {
      name: 'something',
      send: () =>
        Promise.resolve({
          status,
          header: (name) => (name === 'content-type' ? type : undefined),
          body: inTurn(pieces(body)),
        }),
    };
    const exchange = { method: 'POST', path: '/v1/x' } as const;
    const refused: unknown[] = [];
    const impatient = AbortSignal.abort(new StasisError('cancelled', 'no second try'));
    for (const use of [
      () => sendForJson(transport, exchange),
      () => runOperation(transport, { ...exchange, signal: impatient }, {}),
      async () => {
        for await (const news of watch(transport, 0, undefined)) assert.equal(typeof news, 'object');
      },
    ]) {
      try {
        await use();
      } catch (error) {
        refused.push(error);
      }
    }
    for (const error of refused) if (!isTyped(error, daemonReply)) throw error;
  },
};

export const TARGETS: readonly Target[] = [
  ...[definition, settings, domain, cron, values],
  ...[qmp, qemuAnswers, agent, returnPath, memoryFile, vmstate, screen],
  ...[lvm, imageReport, firmware, metrics, records, identity],
  ...[channel, webSocket, eventStream, daemonReply],
];

async function* inTurn(parts: readonly Buffer[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield await Promise.resolve(part);
}

async function scratchFile() {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-fuzz-'));
  const path = join(directory, 'memory');
  const file = await open(path, 'w+');
  return {
    path,
    file,
    [Symbol.asyncDispose]: async () => {
      await file.close();
      rmSync(directory, { recursive: true });
    },
  };
}
