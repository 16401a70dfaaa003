import { StillframeError } from "@stillframe/domain/errors"
import { GuestRefusal } from "../../refusal.ts"

/**
 * QEMU's words for a launch that cannot work, and our sentence with the remedy. The first match counts. A
 * refusal in other words is the caller's too, but its sentence names no more than the members that may be at
 * fault.
 */
const mistakes: readonly (readonly [said: RegExp, sentence: string])[] = [
  [
    /Permission denied/,
    "the user that QEMU runs as may not read a file of the launch; make it readable for all",
  ],
  [/unsupported machine type/, 'QEMU on this host does not know the machine; leave "launch.machine" out'],
  [
    /vmgenid requires DMA write support/,
    'the machine is too old to tell its guest that it is a fork; give a newer "launch.machine", or leave it out',
  ],
  [
    /Invalid SMP CPUs \d+|Number of SMP cpus requested .* exceeds|max CPUs supported/,
    'the machine has no room for so many processors; give fewer "launch.vcpus"',
  ],
  [
    /phys-bits too low|Address space limit|exceeds the maximum|ram size too large|above 4G memory/,
    'the machine cannot address so much memory; give less "launch.memory_mib"',
  ],
  [
    /no slot\/function available|No '\S+' bus found|out of PCI slots/,
    "the machine has no slots for so many disks; give fewer",
  ],
  [
    /without PVH ELF Note|invalid kernel header|could not load (PVH )?kernel|kernel too old|Cannot load x86-64 image|Error while loading elf kernel/,
    "QEMU cannot boot the kernel; give a bzImage, or a vmlinux with a PVH note",
  ],
  [
    /initrd is too large/,
    'the initial RAM disk does not fit into the memory; give a smaller "launch.initrd", or more "launch.memory_mib"',
  ],
  [
    /could not load initial ram disk|error reading initrd/,
    'QEMU cannot read the initial RAM disk; give a file that it can read as "launch.initrd"',
  ],
  [
    /Unsupported qcow2 feature|Unsupported compression type|unknown compression type|not in qcow2 format/i,
    "QEMU on this host cannot read the format of a disk; convert it with qemu-img convert -O qcow2",
  ],
  [
    /L1 table|refcount table|Reference count|Image is corrupt|snapshot table|Backing file name/i,
    "QEMU cannot read the tables of a disk; check it with qemu-img check",
  ],
]

/**
 * Turns a refusal in known words into an `invalid_request` in ours. Any other failure is returned as it is.
 */
export function knownMistake(error: unknown): unknown {
  if (!(error instanceof GuestRefusal)) return error
  const sentence = mistakes.find(([said]) => said.test(error.said ?? ""))?.[1]
  if (sentence === undefined) return error
  return new StillframeError("invalid_request", sentence, { cause: error, said: error.said })
}
