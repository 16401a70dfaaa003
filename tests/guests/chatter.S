# Chatter: prints the letters of the alphabet on COM1, without end and without rest.
# Build: gcc -c chatter.S -o c.o && ld -m elf_x86_64 -Ttext=0x100000 -e start -o chatter.elf c.o && strip chatter.elf
        .section .note.PVH, "a", @note
        .long   4, 8, 18              # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .quad   start

        .text
        .code32
        .globl  start
start:  mov     $0x3f8, %dx
        mov     $'a', %al
print:  outb    %al, %dx
        inc     %al
        cmp     $'z', %al
        jbe     print
        jmp     start
