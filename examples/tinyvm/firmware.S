/*
 * firmware.S - what tinyvm runs when no -bios is given: a banner, a prompt, and each line comes back.
 *
 * It sleeps in wfi and is woken through the PLIC, but takes no traps: with the global enable off, wfi still returns when an
 * enabled interrupt is pending. `poweroff` and `reboot` write to the test finisher. A BREAK starts the line over.
 *
 * firmware.c holds the bytes. Rebuild it (from this folder) with
 *
 *     riscv64-unknown-elf-gcc -march=rv32im_zicsr -mabi=ilp32 -nostdlib -Wl,-Ttext=0x80000000 -o /tmp/firmware.elf firmware.S
 *     riscv64-unknown-elf-objcopy -O binary /tmp/firmware.elf /tmp/firmware.bin
 *     { sed '/^{$/q' firmware.c; xxd -i < /tmp/firmware.bin; echo '};'; sed '1,/^};$/d' firmware.c; } > /tmp/firmware.c
 *     mv /tmp/firmware.c firmware.c
 */
#define UART      0x10000000
#define PLIC      0x0c000000
#define FINISHER  0x00100000
#define UART_IRQ  10
#define LINE_MAX  256

        .globl _start
_start: li      s0, UART
        li      s1, PLIC
        li      s2, PLIC + 0x200000             # threshold, and claim after it
        la      s3, line
        li      t0, 1
        sw      t0, 4 * UART_IRQ(s1)            # priority
        li      t0, 1 << UART_IRQ
        li      t1, PLIC + 0x2000
        sw      t0, 0(t1)                       # enable the source
        sw      zero, 0(s2)
        li      t0, 0x800
        csrw    mie, t0                         # external interrupts wake the hart
        li      t0, 0x03
        sb      t0, 3(s0)                       # 8N1
        li      t0, 0x07
        sb      t0, 2(s0)                       # FIFOs on and empty, trigger at 1
        li      t0, 0x01
        sb      t0, 1(s0)                       # interrupt on input
        la      a0, banner
        call    puts

prompt: la      a0, arrow
        call    puts
        li      s4, 0                           # length of the line
        li      s5, LINE_MAX - 1

next:   call    getc
        bltz    a0, broken
        li      t0, '\r'
        beq     a0, t0, enter
        li      t0, '\n'
        beq     a0, t0, newline
        li      s6, 0                           # the last one wasn't a CR
        li      t0, 0x7f
        beq     a0, t0, erase
        li      t0, 0x08
        beq     a0, t0, erase
        bge     s4, s5, next                    # a full line takes no more
        add     t0, s3, s4
        sb      a0, 0(t0)
        addi    s4, s4, 1
        call    putc                            # echo
        j       next

erase:  beqz    s4, next
        addi    s4, s4, -1
        la      a0, rubout
        call    puts
        j       next

broken: la      a0, break_text
        call    puts
        j       prompt

newline:                                        # the LF of a CR LF is no second line
        mv      t0, s6
        li      s6, 0
        bnez    t0, next
        j       finish
enter:  li      s6, 1
finish: add     t0, s3, s4
        sb      zero, 0(t0)
        la      a0, crlf
        call    puts
        beqz    s4, prompt
        la      a0, poweroff
        li      s7, 0x5555
        call    is_line
        bnez    a0, stop
        la      a0, reboot
        li      s7, 0x7777
        call    is_line
        bnez    a0, stop
        mv      a0, s3
        call    puts
        la      a0, crlf
        call    puts
        j       prompt

stop:   li      t0, FINISHER
        sw      s7, 0(t0)
1:      wfi
        j       1b

# a0 = text: 1 if the line is just that, else 0
is_line:
        mv      t0, s3
1:      lbu     t1, 0(t0)
        lbu     t2, 0(a0)
        bne     t1, t2, 2f
        addi    t0, t0, 1
        addi    a0, a0, 1
        bnez    t1, 1b
        li      a0, 1
        ret
2:      li      a0, 0
        ret

# sleeps until the UART has something to say
wait:   wfi
        lw      t0, 4(s2)
        sw      t0, 4(s2)
        ret

# the next byte, or -1 for a BREAK
getc:   mv      s8, ra
1:      lbu     t1, 5(s0)
        andi    t0, t1, 0x01
        bnez    t0, 2f
        call    wait
        j       1b
2:      lbu     a0, 0(s0)
        or      t1, t1, tp
        li      tp, 0
        andi    t1, t1, 0x10
        beqz    t1, 3f
        li      a0, -1
3:      jr      s8

# a0 = byte; while the transmitter is busy only it may wake the hart. Reading the line status clears a BREAK in it: tp keeps it
putc:   lbu     t0, 5(s0)
        or      tp, tp, t0
        andi    t0, t0, 0x20
        beqz    t0, 1f
        sb      a0, 0(s0)
        ret
1:      mv      s9, ra
        li      t0, 0x02
        sb      t0, 1(s0)
        call    wait
        li      t0, 0x01
        sb      t0, 1(s0)
        mv      ra, s9
        j       putc

# a0 = text
puts:   mv      s10, ra
        mv      s11, a0
1:      lbu     a0, 0(s11)
        beqz    a0, 2f
        call    putc
        addi    s11, s11, 1
        j       1b
2:      jr      s10

banner:     .string "tinyvm: RV32IM at your service. Lines come back; poweroff and reboot do what they say.\r\n"
arrow:      .string "> "
crlf:       .string "\r\n"
rubout:     .string "\b \b"
break_text: .string "<break>\r\n"
poweroff:   .string "poweroff"
reboot:     .string "reboot"
line:                                           # in the RAM behind the program
