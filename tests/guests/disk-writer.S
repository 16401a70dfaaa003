# Disk writer: writes to its first virtio disk for ever, 16 KiB at a time from the first sector to the last it has, and prints "w" on COM1
# for each write that succeeded and "e" for one that failed. For QEMU's PCI machines, whose firmware has given the disk its ports.
# Build: gcc -c disk-writer.S -o d.o && ld -m elf_x86_64 -Ttext=0x100000 -e start -o disk-writer.elf d.o && strip disk-writer.elf
#define QUEUE 0x800000                /* descriptors, then both rings, as a legacy device wants them */
#define AVAIL(size) (QUEUE + 16 * size)
#define DATA 0x500000
#define BYTES 0x4000
#define REST 20000                    /* some milliseconds */

        .section .note.PVH, "a", @note
        .long   4, 8, 18              # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .quad   start

        .text
        .code32
        .globl  start
start:  mov     $stack, %esp
        mov     $0x80000000, %ebx     # bus 0: the disk is the device 1af4:1001
find:   mov     $0, %ecx
        call    config
        cmp     $0x10011af4, %eax
        je      found
        add     $0x800, %ebx
        jmp     find
found:  mov     $4, %ecx              # ports and bus mastering on
        call    config
        or      $5, %eax
        outl    %eax, %dx
        mov     $0x10, %ecx
        call    config
        and     $0xfffffffc, %eax
        mov     %eax, %ebp            # the device's ports
        mov     $3, %al               # acknowledged, has a driver
        lea     18(%ebp), %edx
        outb    %al, %dx
        lea     12(%ebp), %edx
        inw     %dx, %ax              # entries of queue 0
        movzwl  %ax, %esi
        mov     $QUEUE >> 12, %eax
        lea     8(%ebp), %edx
        outl    %eax, %dx
        mov     $7, %al
        lea     18(%ebp), %edx
        outb    %al, %dx
        mov     %esi, %eax            # the device's ring: behind ours, on a page of its own
        shl     $4, %eax
        lea     QUEUE(%eax), %edi     # ours
        lea     6 + 0xfff(%edi,%esi,2), %ecx
        and     $0xfffff000, %ecx
        mov     %ecx, used
        movl    $header, QUEUE
        movl    $16, QUEUE + 8
        movl    $0x10001, QUEUE + 12  # goes on in 1
        movl    $DATA, QUEUE + 16
        movl    $BYTES, QUEUE + 24
        movl    $0x20001, QUEUE + 28  # goes on in 2
        movl    $status, QUEUE + 32
        movl    $1, QUEUE + 40
        movl    $2, QUEUE + 44        # written by the device
        movl    $1, header            # a write
        lea     20(%ebp), %edx        # sectors that the disk has
        inl     %dx, %eax
        mov     %eax, sectors
write:  lea     2(%edi), %eax
        incw    (%eax)                # one request more: chain 0 every time
        xor     %eax, %eax
        lea     16(%ebp), %edx
        outw    %ax, %dx
wait:   mov     used, %ecx
        mov     2(%edi), %ax
        cmp     2(%ecx), %ax
        pause
        jne     wait
        mov     $'w', %al
        cmpb    $0, status
        je      say
        mov     $'e', %al
say:    mov     $0x3f8, %dx
        outb    %al, %dx
        mov     $REST, %ecx
rest:   inb     $0x80, %al            # a port that takes time and does nothing
        loop    rest
        addl    $BYTES / 512, header + 8
        mov     header + 8, %eax
        cmp     sectors, %eax
        jb      write
        movl    $0, header + 8
        jmp     write

# The word at %ecx of the configuration of %ebx, whose port it leaves in %dx.
config: lea     (%ebx,%ecx), %eax
        mov     $0xcf8, %dx
        outl    %eax, %dx
        mov     $0xcfc, %dx
        inl     %dx, %eax
        ret

        .bss
        .balign 16
header: .space  16
status: .space  4
used:   .space  4
sectors: .space 4
        .space  4096
stack:
