/* What the guest is besides its writer; see machine.h. */

#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/input.h>
#include <linux/rtc.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BUTTONS_MAX 8
#define NS_PER_S    1000000000ULL

static uint64_t
clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t
machine_time_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

uint64_t
machine_ticks_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

void
machine_wait_until_ns(uint64_t ticks_ns)
{
    struct timespec until = { .tv_sec = (time_t)(ticks_ns / NS_PER_S),
                              .tv_nsec = (long)(ticks_ns % NS_PER_S) };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        continue;
}

static void
take_setting(struct machine_settings *s, const char *word)
{
    const char *value = strchr(word, '=');

    if (value == NULL)
        return;
    value++;
    if (strncmp(word, "lab.disks=", 10) == 0)
        s->disks = (uint32_t)strtoul(value, NULL, 10);
    else if (strncmp(word, "lab.rate=", 9) == 0)
        s->rate = strcmp(value, "max") == 0 ? -1 : strtod(value, NULL);
    else if (strncmp(word, "lab.span=", 9) == 0)
        s->span_bytes = strtoull(value, NULL, 10);
    else if (strncmp(word, "lab.fill=", 9) == 0)
        s->half = strcmp(value, "half") == 0;
    else if (strncmp(word, "lab.deaf=", 9) == 0)
        s->deaf = strcmp(value, "yes") == 0;
    else if (strncmp(word, "lab.agent=", 10) == 0)
        snprintf(s->fault, sizeof(s->fault), "%s", value);
}

struct machine_settings
machine_settings(void)
{
    struct machine_settings s = { .disks = 2, .rate = 50 };
    char line[4096] = "";
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);

    line[n < 0 ? 0 : n] = '\0';
    for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"))
        take_setting(&s, word);
    if (fd >= 0)
        close(fd);
    return s;
}

time_t
machine_rtc(void)
{
    struct rtc_time now;
    struct tm tm = { 0 };
    int fd = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && ioctl(fd, RTC_RD_TIME, &now) == 0;

    if (fd >= 0)
        close(fd);
    if (!ok)
        return 0;
    tm = (struct tm){ .tm_sec = now.tm_sec,
                      .tm_min = now.tm_min,
                      .tm_hour = now.tm_hour,
                      .tm_mday = now.tm_mday,
                      .tm_mon = now.tm_mon,
                      .tm_year = now.tm_year };
    return timegm(&tm);
}

/* Waits for the RTC's second to change: then its time is right to a few milliseconds. */
static void *
clock_thread(void *arg)
{
    time_t first = machine_rtc();
    struct timeval time = { 0 };

    (void)arg;
    if (first == 0)
        return NULL;
    do {
        machine_wait_until_ns(machine_ticks_ns() + 2000000);
        time.tv_sec = machine_rtc();
    } while (time.tv_sec == first);
    settimeofday(&time, NULL);
    return NULL;
}

static void
thread_start(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, arg) == 0)
        pthread_detach(thread);
    else
        printf("error no thread\n");
}

void
machine_clock_start(void)
{
    thread_start(clock_thread, NULL);
}

static nfds_t
open_buttons(struct pollfd *fds)
{
    glob_t found;
    nfds_t n = 0;

    if (glob("/dev/input/event*", 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc && n < BUTTONS_MAX; i++) {
        fds[n].fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
        fds[n].events = POLLIN;
        if (fds[n].fd >= 0)
            n++;
    }
    globfree(&found);
    return n;
}

static void *
button_thread(void *arg)
{
    void (*pressed)(void) = *(void (**)(void))arg;
    struct pollfd fds[BUTTONS_MAX];
    nfds_t n = open_buttons(fds);
    struct input_event event;

    if (n == 0)
        printf("error no power button\n");
    while (n > 0 && poll(fds, n, -1) >= 0) {
        for (nfds_t i = 0; i < n; i++) {
            if ((fds[i].revents & POLLIN) == 0)
                continue;
            if (read(fds[i].fd, &event, sizeof(event)) != sizeof(event))
                return NULL;
            if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
                pressed();
        }
    }
    return NULL;
}

void
machine_button_start(void (*pressed)(void))
{
    static void (*call)(void);

    call = pressed;
    thread_start(button_thread, &call);
}

void
machine_power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
