import { expect, test } from "vitest"
import { imageFormat, isKernel } from "./file-magic.ts"

function head(bytes: string, at = 0): Buffer {
  const file = Buffer.alloc(64 * 1024)
  file.write(bytes, at, "latin1")
  return file
}

test.each([
  ["qcow", head("QFI\xfb")],
  ["VMDK", head("KDMV")],
  ["VMDK", head("# Disk DescriptorFile\nversion=1")],
  ["VHDX", head("vhdxfile")],
  ["VHD", head("conectix")],
  ["VDI", head("\x7f\x10\xda\xbe", 0x40)],
  ["QED", head("QED\0")],
])("an image of %s is known by its first bytes", (format, bytes) => {
  expect(imageFormat(bytes)).toBe(format)
})

test.each([
  ["zeros", head("")],
  ["nothing", Buffer.alloc(0)],
  ["a boot sector", head("\x55\xaa", 0x1fe)],
  ["an ISO 9660 file system", head("\x01CD001", 0x8000)],
  ["a disk that its guest encrypted whole", head("LUKS\xba\xbe")],
  ["an ext4 file system", head("\x53\xef", 0x438)],
  ["the name of a format that is not at the beginning", head("QFI\xfb", 512)],
])("%s may be a raw disk", (_what, bytes) => {
  expect(imageFormat(bytes)).toBeUndefined()
})

test.each([
  ["an ELF", head("\x7fELF"), true],
  ["a bzImage", head("\x55\xaa", 0x1fe), true],
  ["an EFI program", head("MZ"), true],
  ["an Image of arm64", head("ARM\x64", 0x38), true],
  ["a multiboot kernel", head("\x02\xb0\xad\x1b", 0x1000), true],
  ["text", head("no kernel"), false],
  ["zeros", head(""), false],
  ["nothing", Buffer.alloc(0), false],
])("%s is a kernel or is not", (_what, bytes, is) => {
  expect(isKernel(bytes)).toBe(is)
})
