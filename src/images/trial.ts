/**
 * A trial restore: the machine of an image on scratch heads and with a network of nothing, let run until it shows that it
 * lives, and thrown away. It is nobody's guest: the catalog never hears of it, and what a crash leaves of it the plan names.
 */
import { randomUUID } from 'node:crypto';
import { getGuestByUuid } from '../catalog/guests.ts';
import type { ImageRecord } from '../catalog/images.ts';
import { pinsOf } from '../catalog/layers.ts';
import { StasisError, messageOf } from '../errors.ts';
import { runAsNow } from '../guests/build.ts';
import { storedDefinition, type Definition } from '../guests/definition.ts';
import {
  checkSeals,
  leaveDisks,
  machineDisks,
  makeLayers,
  planHeads,
  removeLayers,
} from '../guests/disks.ts';
import { availableBytes, refuseWithoutHugePages } from '../guests/host-memory.ts';
import type { Host } from '../guests/host.ts';
import { removeGuestDirectory } from '../guests/tpm.ts';
import { newId } from '../ids.ts';
import type { OperationHandle } from '../operations/procedure.ts';
import { canIsolate } from '../qemu/process/isolation.ts';
import type { RestoreMethodName } from '../qemu/restore/restore.ts';
import type { PlannedLayer } from '../storage/driver.ts';
import { letLive, type Proof } from './life-signs.ts';
import { checkedMemory, chooseRestoreMethod, loadMachine, manifestOf } from './load.ts';
import { refuseExcluded } from './media.ts';
import { refuseOtherQemu } from './preflight.ts';

export interface TrialPlan {
  readonly instance: string;
  readonly definition: Definition;
  readonly method: RestoreMethodName;
  readonly heads: readonly PlannedLayer[];
  readonly proof: Proof;
}

/** A guest writes to a part of the memory that is mapped for it. */
const MAPPED_SHARE = 0.25;
const QEMU_BYTES = 128 * 1024 ** 2;

/** @throws StasisError `unsupported` for what can't be isolated, `disk-in-use`, `no-memory`, `qemu-mismatch`, with the reason */
export async function planTrial(
  host: Host,
  image: ImageRecord,
  guestName: string,
  proof: Proof,
): Promise<TrialPlan> {
  const { definition: saved, media = [] } = manifestOf(image);
  refuseExcluded(media, guestName);
  await refuseWithoutHugePages(guestName, saved);
  const guest = await getGuestByUuid(host.catalog, image.guest);
  await refuseOtherQemu(host, guestName, image, storedDefinition(guest).qemu.build);
  const definition = await inIsolation(runAsNow(saved, guest));
  const method = await methodFor(host, image);
  const neededBytes = saved.memoryBytes * (method === 'mapped' ? MAPPED_SHARE : 1) + QEMU_BYTES;
  const freeBytes = await availableBytes();
  if (saved.hugePageBytes === undefined && neededBytes > freeBytes)
    throw new StasisError(
      'no-memory',
      `a trial of image ${image.name} needs ${Math.ceil(neededBytes / 1024 ** 2)} MiB of memory, and the host has ${Math.floor(freeBytes / 1024 ** 2)} MiB`,
      { details: { neededBytes, freeBytes } },
    );
  const pins = (await pinsOf(host.catalog, image.id)).map(({ disk, layer }) => ({ disk, layer: layer.id }));
  return {
    instance: newId(),
    definition,
    method,
    heads: await planHeads(host, { definition, data: host.paths.data }, pins),
    proof,
  };
}

/** As the image says, but nobody's: with an identity of its own, and nothing of it reaches out or can be reached. */
async function inIsolation(saved: Definition): Promise<Definition> {
  if (saved.qemu.args.length > 0)
    throw new StasisError(
      'unsupported',
      'a trial of this guest is not possible: what its hand-written arguments of QEMU (`qemu.args`) reach, nobody can tell',
    );
  const needsTap = saved.networks.some(({ type }) => type !== 'user');
  if (needsTap && !(await canIsolate()))
    throw new StasisError(
      'unsupported',
      'a trial of this guest is not possible: its network cards need a tap device, in a network namespace where nothing else is, and this daemon may not make one. Run the daemon as root, or let its user open /dev/net/tun and make user namespaces',
    );
  const { graphics } = saved;
  return {
    ...saved,
    name: `${saved.name}-trial`,
    uuid: randomUUID(),
    // What a card offers its guest depends on what it is plugged into, and must stay.
    networks: saved.networks.map((network) => ({
      ...network,
      type: network.type === 'user' ? 'cut-user' : 'lone-tap',
    })),
    graphics: typeof graphics === 'string' ? graphics : graphics.type,
  };
}

/** Not lazily: a pager would be one more thing to look after, for a guest that soon goes. */
async function methodFor(host: Host, image: ImageRecord): Promise<RestoreMethodName> {
  const memory = await checkedMemory(host, image);
  try {
    return await chooseRestoreMethod(host, image, memory, 'mapped');
  } catch (error) {
    if (StasisError.from(error).code === 'unsupported') return 'eager';
    throw error;
  }
}

/**
 * Restores the image and waits for proof that it lives.
 * @returns the evidence
 * @throws StasisError `image-damaged` with what was seen, `restore-failed`, `cancelled`
 */
export async function tryOut(
  host: Host,
  image: ImageRecord,
  plan: TrialPlan,
  operation: OperationHandle,
): Promise<readonly string[]> {
  const { definition, instance, method, heads, proof } = plan;
  await checkSeals(
    host,
    (await pinsOf(host.catalog, image.id)).map(({ disk, layer }) => ({ disk, layer: layer.id })),
  );
  await operation.step('lay-scratch', () => makeLayers(host, heads, operation.signal));
  await operation.step('load', async () => {
    const disks = await machineDisks(host.catalog, [], heads);
    await loadMachine(host, image, { instance, definition, method, disks }, operation);
  });
  return operation.step('live', async () => {
    const process = await host.supervisor.attach(instance, definition.uuid);
    if (process === undefined) throw new StasisError('image-damaged', 'QEMU ended as soon as it was loaded');
    const { agent, serial, graphics, cpus } = definition;
    return letLive(process, { agent, serial, screen: graphics !== 'none', cpus }, proof, operation.signal);
  });
}

/** Nothing is left of it, however far it came. Repeatable. */
export async function discardTrial(host: Host, plan: TrialPlan): Promise<void> {
  await host.supervisor.discard(plan.instance);
  await removeLayers(host, plan.heads);
  await leaveDisks(host, { definition: plan.definition, data: host.paths.data });
  await removeGuestDirectory(host.paths.data, plan.definition.uuid);
}

/** @throws StasisError `invalid-request` */
export function checkPattern(pattern: string | undefined): void {
  if (pattern === undefined) return;
  try {
    ''.search(pattern); // compiles it
  } catch (error) {
    throw new StasisError('invalid-request', `"${pattern}" is no regular expression: ${messageOf(error)}`);
  }
}
