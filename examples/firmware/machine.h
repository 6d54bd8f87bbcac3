/* The board support of firmware.c: two rings between the main loop and the UART's interrupt handlers, and sleep.
 * Implemented by mps2.c and tinyvm.c. */
#ifndef FIRMWARE_MACHINE_H
#define FIRMWARE_MACHINE_H

#include "chardev.h"

extern chr_isr_ring      machine_rx, machine_tx; /* interrupt handlers put into the first, get from the second */
extern volatile unsigned machine_interrupts;     /* number of interrupts */

void machine_start(void);         /* enables the UART and its interrupts */
void machine_send(void);          /* call after a put into machine_tx */
void machine_receive(void);       /* call after a get from machine_rx */
void machine_wait(unsigned seen); /* sleeps until an interrupt, unless machine_interrupts != seen */

#endif
