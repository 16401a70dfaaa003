import { StillframeError } from "@stillframe/domain/errors"
import { bootFiles } from "../../boot-names.ts"
import { blockNode, nodeName } from "../../disks/block-node.ts"
import type { Disk } from "../../disks/disks.ts"
import type { LaunchConfig } from "../../launch-config.ts"

/**
 * Names in an instance's directory, which is QEMU's working directory; they are relative so that none depends
 * on where it lies.
 */
export const qemuFiles = {
  command: "command.sock",
  watch: "watch.sock",
  serial: "serial.log",
  log: "qemu.log",
  ...bootFiles,
} as const

const validIdentity = /^[a-zA-Z0-9][a-zA-Z0-9-]{0,127}$/

/**
 * QEMU's argument vector. Everything that depends on a caller is either a number, a word of a closed list,
 * JSON, or the one argument `-append`, which QEMU takes as it is. `identity` ends up in the process's name,
 * by which a host finds its own VMs.
 */
export function qemuArguments(options: {
  config: LaunchConfig
  disks: readonly Disk[]
  identity: string
  incoming?: boolean
}): string[] {
  const { config, disks, identity, incoming } = options
  if (!validIdentity.test(identity))
    throw new StillframeError("internal_error", `"${identity}" cannot name a process`)
  const onPci = config.machine !== "microvm"
  return [
    ["-name", `guest=${identity}`],
    ["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-S"],
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ["-machine", `${config.machine},accel=${config.accel}`, "-cpu", config.cpu],
    ["-m", `${config.memoryMib}M`, "-smp", String(config.vcpus)],
    monitor(qemuFiles.command, "command"),
    monitor(qemuFiles.watch, "watch"),
    ["-chardev", `file,id=serial,path=${qemuFiles.serial},append=on`, "-serial", "chardev:serial"],
    config.kernel === undefined ? [] : ["-kernel", qemuFiles.kernel],
    config.initrd === undefined ? [] : ["-initrd", qemuFiles.initrd],
    config.cmdline === undefined ? [] : ["-append", config.cmdline],
    // A new id with every process, so that the guest of a fork knows that it must not reuse its randomness.
    onPci ? json("-device", { driver: "vmgenid", guid: "auto", id: "generation" }) : [],
    disks.flatMap((disk, index) =>
      diskArguments(disk, index, onPci ? "virtio-blk-pci" : "virtio-blk-device"),
    ),
    incoming ? ["-incoming", "defer"] : [],
  ].flat()
}

function monitor(path: string, id: string): string[] {
  return ["-chardev", `socket,id=${id},path=${path},server=on,wait=off`, "-mon", `chardev=${id},mode=control`]
}

function diskArguments(disk: Disk, index: number, driver: string): string[] {
  return [
    ...json("-blockdev", blockNode(index, disk.layers, disk.readonly)),
    ...json("-device", {
      driver,
      id: `disk${index}`,
      drive: nodeName(index, disk.layers),
      ...onWriteError(disk),
    }),
  ]
}

/**
 * QEMU's default stops a guest for ENOSPC alone, and a quota that is used up (EDQUOT) would reach it as a
 * broken disk. A write that fails is kept and done again when the VM goes on. Failed reads reach the guest.
 */
function onWriteError({ readonly }: Disk): object {
  return readonly ? {} : { werror: "stop" }
}

const json = (option: string, value: object): string[] => [option, JSON.stringify(value)]
