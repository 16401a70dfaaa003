/** The guests that come with Stillframe, and the defaults of their launch. */
export const builtinImages = {
  /** A Debian kernel with a small initramfs that counts on its serial console. */
  demo: { memory_mib: 256, vcpus: 1 },
  /** Our own guest of about 150 bytes. */
  heartbeat: { memory_mib: 64, vcpus: 1 },
} as const

export type BuiltinImage = keyof typeof builtinImages
