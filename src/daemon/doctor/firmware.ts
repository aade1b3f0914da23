/** What guests with UEFI or a TPM need, as far as it is installed. */
import { StasisError } from '../../errors.ts';
import { firmwareDescriptors } from '../../qemu/build/firmware.ts';
import { findTpmProgram } from '../../qemu/tpm.ts';
import { degraded, ok, type Finding } from './check.ts';

const CURE = 'on Debian and Ubuntu: apt-get install ovmf';

export async function tpm(): Promise<Finding> {
  try {
    return ok(`swtpm at ${await findTpmProgram()}`);
  } catch (error) {
    if (!(error instanceof StasisError && error.code === 'unsupported')) throw error;
    return degraded(
      'swtpm is not installed: such guests can not be defined',
      'on Debian and Ubuntu: apt-get install swtpm',
    );
  }
}

export async function uefi(): Promise<Finding> {
  const found = await firmwareDescriptors();
  const secure = found.filter(({ features }) => features.includes('secure-boot'));
  if (found.length === 0) return degraded('none is installed: such guests can not be defined', CURE);
  if (secure.length === 0) return degraded('without Secure Boot only', CURE);
  const enrolled = secure.some(({ features }) => features.includes('enrolled-keys'));
  return ok(`with and without Secure Boot${enrolled ? ", its keys Microsoft's" : ', without keys'}`);
}
