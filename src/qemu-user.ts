/** The user that the service's unit makes for QEMU, and that the system's daemon looks for. */
export const QEMU_USER = 'stasis-qemu';
