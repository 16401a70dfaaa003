/** Bytes at the beginning of a file from which `imageFormat` and `isKernel` tell what it is. */
export const magicBytes = 8 * 1024

interface Magic {
  readonly format: string
  readonly at: number
  readonly bytes: Buffer
}

const magic = (format: string, bytes: string | readonly number[], at = 0): Magic => ({
  format,
  at,
  bytes: typeof bytes === "string" ? Buffer.from(bytes, "latin1") : Buffer.from(bytes),
})

/**
 * Formats of disk images whose first bytes mean nothing to a guest. ISO 9660 and LUKS are raw: a guest reads
 * them as they are.
 */
const imageMagics = [
  magic("qcow", [0x51, 0x46, 0x49, 0xfb]),
  magic("VMDK", "KDMV"),
  magic("VMDK", "COWD"),
  magic("VMDK", "# Disk DescriptorFile"),
  magic("VHDX", "vhdxfile"),
  magic("VHD", "conectix"),
  magic("VDI", [0x7f, 0x10, 0xda, 0xbe], 0x40),
  magic("QED", "QED\0"),
  magic("Parallels", "WithoutFreeSpace"),
  magic("Parallels", "WithouFreSpacExt"),
]

/** The format of a disk image that is not raw; undefined for what may be a raw one. */
export function imageFormat(head: Buffer): string | undefined {
  return imageMagics.find((one) => holds(head, one))?.format
}

const kernelMagics = [
  magic("ELF", [0x7f, 0x45, 0x4c, 0x46]),
  // Linux for PCs (its boot sector), and EFI programs.
  magic("bzImage", [0x55, 0xaa], 0x1fe),
  magic("EFI", "MZ"),
  magic("Image", "ARM\x64", 0x38),
]

const multibootMagic = Buffer.from([0x02, 0xb0, 0xad, 0x1b])

/**
 * True for a file that begins as a hypervisor's kernel: an ELF, a Linux or EFI image, or a multiboot kernel.
 */
export function isKernel(head: Buffer): boolean {
  return kernelMagics.some((one) => holds(head, one)) || head.includes(multibootMagic)
}

function holds(head: Buffer, { at, bytes }: Magic): boolean {
  return head.subarray(at, at + bytes.length).equals(bytes)
}
