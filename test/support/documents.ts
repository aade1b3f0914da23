/** Documents of the wire with everything in them that a test doesn't care about. */
import type { Guest, Image } from '../../src/api/schemas.ts';

export function aGuest(fields: Partial<Guest> = {}): Guest {
  return {
    name: 'web1',
    uuid: '7e4e1b0a-ca4d-4b1a-8000-000000000001',
    state: 'running',
    memoryBytes: 1024 ** 3,
    cpus: 2,
    disks: [],
    images: 0,
    lastImage: null,
    lastImageAt: null,
    currentImage: null,
    policy: {
      onBoot: 'restore',
      onShutdown: 'save',
      order: 10,
      delaySeconds: 0,
      timeLimitSeconds: 300,
      fallback: 'none',
    },
    machine: 'pc-q35-10.0',
    cpu: 'host-model',
    accelerator: 'kvm',
    pid: 4711,
    operation: null,
    createdAt: '2026-06-01T12:00:00Z',
    stateReason: null,
    definition: {},
    ...fields,
  };
}

export function anImage(fields: Partial<Image> = {}): Image {
  return {
    name: 'before-update',
    guest: 'web1',
    state: 'ready',
    createdAt: '2026-06-14T12:00:00Z',
    live: true,
    method: 'precopy',
    pauseMs: 13,
    predictedPauseMs: 20,
    maxPauseMs: null,
    pauseParts: null,
    bytesWritten: 400_000_000,
    memoryBytes: 1024 ** 3,
    diskBytes: 8 * 1024 ** 3,
    storedBytes: 327_155_712,
    description: '',
    parent: null,
    disks: [],
    verifiedAt: null,
    current: false,
    saveMs: 1400,
    guestWasPaused: false,
    qemuVersion: '10.0.7',
    machine: 'pc-q35-10.0',
    memoryFile: '/srv/images/1/memory',
    screenFile: null,
    restoredCount: 0,
    restoreMethod: null,
    definition: {},
    ...fields,
  };
}
