import { expect, test } from "vitest"
import { parseCommandLine } from "./parse-command-line.ts"

const running = { cwd: "/vm", machine: "pc-q35-7.2", accel: "tcg" } as const
const parse = (line: string | string[]): ReturnType<typeof parseCommandLine> =>
  parseCommandLine(typeof line === "string" ? line.split(" ") : line, running)

/** What a line without a disk or kernel says. */
const bare = { machine: "pc-q35-7.2", accel: "tcg", cpu: "qemu64", memoryMib: 128, vcpus: 1, disks: [] }
const raw = (path: string, readonly = false): object => ({ path, format: "raw", readonly })

test.each([
  ["nothing but no defaults", "-nodefaults", {}],
  ["two dashes", "--nodefaults --m 64", { memoryMib: 64 }],
  ["memory in MiB", "-nodefaults -m 512", { memoryMib: 512 }],
  ["memory with its unit and name", "-nodefaults -m size=2G", { memoryMib: 2048 }],
  ["processors by name", "-nodefaults -smp cpus=4", { vcpus: 4 }],
  ["an alias of the machine", "-nodefaults -M q35,accel=kvm:tcg -cpu max", { cpu: "max" }],
  ["an accelerator of its own", "-nodefaults -machine pc -accel tcg,thread=multi", {}],
  [
    "a kernel by a relative name",
    "-nodefaults -kernel vmlinuz -initrd /boot/initrd -append console=ttyS0",
    { kernel: "/vm/vmlinuz", initrd: "/boot/initrd", cmdline: "console=ttyS0" },
  ],
  [
    "whatever changes nothing for the guest",
    "-nodefaults -no-user-config -daemonize -S -nographic -display none -vga none -nic none -net none -name guest=web,debug-threads=on -chardev socket,id=m,path=/run/m,server=on,wait=off -mon chardev=m,mode=control -qmp unix:/run/q,server,nowait -monitor none -serial file:/log -pidfile /run/pid -sandbox on -runas nobody -L /usr/share/qemu -incoming defer",
    {},
  ],
])("%s is understood", (_, line, change) => {
  expect(parse(line)).toEqual({ restorable: true, config: { ...bare, ...change }, devices: [] })
})

test.each([
  ["-drive file=/d/a.raw,format=raw,if=virtio", [raw("/d/a.raw")]],
  ["-drive if=virtio,file=a.raw,format=raw,cache=none,aio=native,discard=unmap", [raw("/vm/a.raw")]],
  [
    "-drive file=/a,format=raw,if=none,id=x,readonly=on -device virtio-blk-pci,drive=x,id=d0",
    [raw("/a", true)],
  ],
  ["-drive file.driver=file,file.filename=/a,driver=raw,if=virtio", [raw("/a")]],
  [
    "-blockdev driver=raw,node-name=n,file.driver=file,file.filename=/a -device virtio-blk,drive=n",
    [raw("/a")],
  ],
  [
    "-blockdev file,node-name=f,filename=/a -blockdev raw,node-name=n,file=f -device virtio-blk,drive=n",
    [raw("/a")],
  ],
  [
    '-blockdev {"driver":"qcow2","node-name":"n","read-only":true,"backing":null,"file":{"driver":"file","filename":"/a"}} -device {"driver":"virtio-blk-pci","drive":"n"}',
    [{ path: "/a", format: "qcow2", readonly: true }],
  ],
])("a disk given as %s is understood", (line, disks) => {
  const types = disks.map(() => "virtio-blk-pci")
  expect(parse(`-nodefaults ${line}`)).toEqual({
    restorable: true,
    config: { ...bare, disks },
    devices: types,
  })
})

test("disks come in the guest's order: devices that are named before those that QEMU makes", () => {
  const line =
    "-nodefaults -drive file=/made,format=raw,if=virtio -drive file=/x,format=raw,if=none,id=x -drive file=/y,format=raw,if=none,id=y -device virtio-blk-pci,drive=y -device vmgenid,guid=auto -device virtio-blk-pci,drive=x"

  const parsed = parse(line)

  expect(parsed).toMatchObject({
    config: { disks: [raw("/y"), raw("/x"), raw("/made")] },
    devices: ["virtio-blk-pci", "vmgenid", "virtio-blk-pci", "virtio-blk-pci"],
  })
})

test("a microvm has its own kind of disk", () => {
  const argv = "-nodefaults -drive file=/a,format=raw,if=none,id=x -device virtio-blk-device,drive=x".split(
    " ",
  )

  expect(parseCommandLine(argv, { ...running, machine: "microvm" })).toMatchObject({
    restorable: true,
    devices: ["virtio-blk-device"],
  })
  expect(parseCommandLine(argv, running)).toMatchObject({ option: "-device virtio-blk-device" })
})

test.each([
  ["-m 64", "QEMU's default devices, for want of -nodefaults"],
  ["-nodefaults -netdev user,id=n", "-netdev"],
  ["-nodefaults -device vfio-pci,host=01:00.0", "-device vfio-pci"],
  ["-nodefaults -device e1000,netdev=n -netdev user,id=n", "-netdev"],
  [
    "-nodefaults -device virtio-blk-pci,drive=x,bus=pcie.0 -drive file=/a,format=raw,if=none,id=x",
    "-device virtio-blk-pci bus",
  ],
  ["-nodefaults -net nic", "-net nic"],
  ["-nodefaults -vga std", "-vga std"],
  ["-nodefaults -hda /a", "-hda"],
  ["-nodefaults /images/a.raw", 'the argument "/images/a.raw"'],
  ["-nodefaults -readconfig /etc/x", "-readconfig"],
  ["-nodefaults -global virtio-blk-pci.serial=x", "-global"],
  ["-nodefaults -object memory-backend-file,id=m,size=1G,mem-path=/dev/shm/x", "-object"],
  ["-nodefaults -machine q35,memory-backend=m", "-machine memory-backend"],
  ["-nodefaults -machine q35 -M pc", "-machine, given twice"],
  ["-nodefaults -accel kvm -enable-kvm", "-accel, given twice"],
  ["-nodefaults -cpu host,-vmx", "-cpu host,-vmx"],
  ["-nodefaults -cpu EPYC", "-cpu EPYC"],
  ["-nodefaults -m 1G,slots=2,maxmem=4G", "-m slots"],
  ["-nodefaults -m 1G,size=2G", "-m size, given twice"],
  ["-nodefaults -m 0", "-m size=0"],
  ["-nodefaults -m 1.5G", "-m size=1.5G"],
  ["-nodefaults -smp 2,sockets=2", "-smp sockets"],
  ["-nodefaults -m 1G -m 2G", "-m, given twice"],
  ["-nodefaults -kernel /a -kernel /b", "-kernel, given twice"],
  ["-nodefaults -serial none -serial stdio -serial stdio", "-serial, given twice"],
  ["-nodefaults -m", "-m without its argument"],
  ["-nodefaults -no-acpi", "-no-acpi"],
  ["-nodefaults -__proto__ x", "-__proto__"],
  ["-nodefaults -constructor x", "-constructor"],
  ["-nodefaults -drive file=/a,format=raw", "-drive without if=virtio or if=none"],
  ["-nodefaults -drive file=/a,format=raw,if=ide", "-drive if=ide"],
  ["-nodefaults -drive file=/a,if=virtio", "-drive without format"],
  ["-nodefaults -drive file=/a,format=vmdk,if=virtio", "-drive format=vmdk"],
  ["-nodefaults -drive file=/a,format=raw,if=virtio,snapshot=on", "-drive snapshot"],
  ["-nodefaults -drive file=/a,format=raw,if=virtio,readonly", "-drive readonly"],
  ["-nodefaults -drive file=/a,format=raw,if=virtio,cache=writethrough", "-drive cache=writethrough"],
  ["-nodefaults -drive file=/a,,b,format=raw,if=virtio", "-drive file=/a,b"],
  ["-nodefaults -drive file=/a,file=/b,format=raw,if=virtio", "-drive file, given twice"],
  ["-nodefaults -drive file=nbd:localhost:1,format=raw,if=virtio", "-drive file=nbd:localhost:1"],
  ["-nodefaults -drive file=fat:rw:/etc,format=raw,if=virtio", "-drive file=fat:rw:/etc"],
  [
    '-nodefaults -drive file=json:{"driver":"nbd"},format=raw,if=virtio',
    '-drive file=json:{\\"driver\\":\\"nbd\\"}',
  ],
  ["-nodefaults -drive file=/a,format=raw,if=none,id=x", "the drive x, which no device uses"],
  ["-nodefaults -drive file=/a,format=raw,if=none,id=x -device virtio-blk-pci,drive=y", "-device drive=y"],
  ["-nodefaults -blockdev driver=nbd,node-name=n,server.type=inet", "-blockdev driver=nbd"],
  [
    "-nodefaults -blockdev driver=raw,node-name=n,offset=512,file.driver=file,file.filename=/a",
    "-blockdev offset",
  ],
  [
    '-nodefaults -blockdev {"driver":"qcow2","node-name":"n","backing":"other","file":"f"}',
    "-blockdev backing=other",
  ],
  [
    '-nodefaults -blockdev {"driver":"raw","node-name":"n","file":{"driver":"host_device","filename":"/dev/sda"}}',
    "-blockdev file.driver=host_device",
  ],
  ["-nodefaults -blockdev {broken", "an argument that is not JSON"],
])("%s: can be captured but not restored, and says why", (line, option) => {
  expect(parse(line)).toEqual({ restorable: false, option })
})

test("options in one argument, or none at all, are no options", () => {
  expect(parse(["-nodefaults", "-m 64"])).toEqual({ restorable: false, option: 'the argument "-m 64"' })
  expect(parse(["-nodefaults", ""])).toEqual({ restorable: false, option: 'the argument ""' })
  expect(parse(["-nodefaults", "-m\n64"])).toEqual({ restorable: false, option: 'the argument "-m\\n64"' })
})

test("the kernel's command line is taken as it is, whatever it looks like", () => {
  const parsed = parse(["-nodefaults", "-kernel", "/k", "-append", "-incoming exec:x,,y file=json:{}"])

  expect(parsed).toMatchObject({ config: { cmdline: "-incoming exec:x,,y file=json:{}" } })
})
