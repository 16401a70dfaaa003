import { expect, test } from "vitest"
import { builtinImage } from "./images.ts"

test("the built-in images name their files below the images' folder", () => {
  expect(builtinImage("heartbeat", "/images")).toMatchObject({ kernel: "/images/heartbeat.elf" })
  expect(builtinImage("demo", "/images")).toMatchObject({
    kernel: "/images/demo/vmlinuz",
    initrd: "/images/demo/initramfs.cpio.gz",
  })
})

test("an unknown image is refused with the names of the known ones", () => {
  expect(() => builtinImage("../etc", "/images")).toThrow("use demo or heartbeat")
})
