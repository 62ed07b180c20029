/* What the guest is besides its writer: kernel parameters, clock, power button, the end.
 *
 * Owns the threads that wait for the button and set the clock. Only main calls it. */

#ifndef LAB_MACHINE_H
#define LAB_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct machine_settings {
    uint32_t disks; /* lab.disks= */
    double rate;    /* lab.rate=, blocks per second; 0 idle, below 0 as fast as it goes */
    uint64_t span_bytes; /* lab.span=, of each disk; 0 all of it */
    bool half;           /* lab.fill=half */
    bool deaf;           /* lab.deaf=yes: to its power button */
    char fault[24];      /* lab.agent=, see agent.h */
};

/* From /proc/cmdline; what is not there keeps its default. */
struct machine_settings machine_settings(void);

/* The clock starts with the whole second of the RTC. A thread waits for the next second
 * and sets it right to some milliseconds, so that times in blocks compare with times on
 * the host. */
void machine_clock_start(void);

/* A thread calls `pressed` each time the power button is pressed. */
void machine_button_start(void (*pressed)(void));

/* Does not return. */
void machine_power_off(void) __attribute__((noreturn));

/* The hardware clock, which goes by the host's time; 0 if there is none. */
time_t machine_rtc(void);

/* Real and monotonic time, ns. */
uint64_t machine_time_ns(void);
uint64_t machine_ticks_ns(void);
void machine_wait_until_ns(uint64_t ticks_ns);

#endif
