/* What firmware.c wants of a board: two rings that the UART's interrupts fill and empty, and a way to sleep. mps2.c and
 * tinyvm.c have it. */
#ifndef FIRMWARE_MACHINE_H
#define FIRMWARE_MACHINE_H

#include "chardev.h"

extern chr_isr_ring      machine_rx, machine_tx; /* the interrupts put into the first and get from the second */
extern volatile unsigned machine_interrupts;     /* how many there have been */

void machine_start(void);         /* the UART and its interrupts go on */
void machine_send(void);          /* there is something in machine_tx */
void machine_receive(void);       /* there is room in machine_rx */
void machine_wait(unsigned seen); /* sleeps until an interrupt comes; not at all when machine_interrupts is not `seen` any more */

#endif
