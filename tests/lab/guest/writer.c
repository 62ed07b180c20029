/* The guest's program: runs as process 1 and writes numbered blocks over all its disks.
 *
 * At its start it reads the disks. A run that is there is checked and gone on with, which
 * is what a guest does after a failover; else a new one begins. Lines on the console, one
 * fact each:
 *
 *     new run=ID | found run=ID highest=N held=N missing=N torn=N order=N misplaced=N
 * time=NS start number=N rate=R slots=N ack NUMBER TIME_NS             every block up to
 * NUMBER is durable; at most each 100 ms lat P50_US P99_US MAX_US N     latency of the
 * last 5 s of writes idle | power-button | frozen | thawed | bye | error WHAT
 *
 * TIME_NS is the real time inside block NUMBER. A line counts only with its end of line.
 */

#include "agent.h"
#include "files.h"
#include "firmware.h"
#include "machine.h"
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <linux/fs.h>
#include <unistd.h>

#define NS_PER_MS  1000000ULL
#define NS_PER_S   1000000000ULL
#define ACK_NS     (100 * NS_PER_MS)
#define LATENCY_NS (5 * NS_PER_S)
#define CATCH_UP_NS \
    NS_PER_S /* after a longer pause the missed writes are not made up for */
#define SAMPLES_MAX 65536

struct writer {
    struct machine_settings settings;
    int fds[BLOCK_DISKS_MAX];
    char names[BLOCK_DISKS_MAX][16];
    uint64_t sizes[BLOCK_DISKS_MAX];
    struct block_run run;
    struct block_order order;
    uint64_t next;    /* number of the next block */
    uint64_t acked;   /* last number printed */
    uint64_t durable; /* last number written */
    uint64_t durable_time_ns;
    uint64_t ack_printed_ns;
    uint64_t latency_printed_ns;
    uint32_t samples[SAMPLES_MAX]; /* us */
    unsigned n_samples;
    unsigned char *block;
};

static atomic_bool stopping;
static pthread_mutex_t writing =
    PTHREAD_MUTEX_INITIALIZER; /* held by the agent while frozen */

static void
looked_away(void)
{
    printf("power-button\n");
}

static void
stop_pressed(void)
{
    printf("power-button\n");
    atomic_store(&stopping, true);
}

static void
idle_for_ever(void)
{
    while (!atomic_load(&stopping))
        machine_wait_until_ns(machine_ticks_ns() + 50 * NS_PER_MS);
    printf("bye\n");
    machine_power_off();
}

/* Something that a person must look at: the disks stay as they are. */
static void
give_up(const char *what)
{
    printf("error %s\n", what);
    idle_for_ever();
}

static void
open_disks(struct writer *w)
{
    uint64_t deadline = machine_ticks_ns() + 10 * NS_PER_S;

    if (w->settings.disks == 0 || w->settings.disks > BLOCK_DISKS_MAX)
        give_up("lab.disks is out of range");
    for (uint32_t d = 0; d < w->settings.disks; d++) {
        snprintf(w->names[d], sizeof(w->names[d]), "/dev/vd%c", 'a' + d);
        do {
            w->fds[d] = open(w->names[d], O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
            if (w->fds[d] < 0)
                machine_wait_until_ns(machine_ticks_ns() + 10 * NS_PER_MS);
        } while (w->fds[d] < 0 && machine_ticks_ns() < deadline);
        if (w->fds[d] < 0 || ioctl(w->fds[d], BLKGETSIZE64, &w->sizes[d]) < 0)
            give_up("a disk is not there");
    }
}

/* False after an error; the block then counts as not written and is written again. */
static bool
write_block(struct writer *w, uint32_t disk, uint64_t slot)
{
    ssize_t n = pwrite(w->fds[disk], w->block, BLOCK_BYTES, (off_t)(slot * BLOCK_BYTES));

    if (n == BLOCK_BYTES)
        return true;
    printf("error write disk=%u slot=%" PRIu64 " %s\n", disk, slot,
           n < 0 ? strerror(errno) : "short write");
    machine_wait_until_ns(machine_ticks_ns() + NS_PER_S);
    return false;
}

static void
write_supers(struct writer *w)
{
    for (uint32_t d = 0; d < w->run.disks; d++) {
        block_make_super(&w->run, d, w->block);
        while (!write_block(w, d, 0))
            continue;
    }
}

static void
begin_run(struct writer *w)
{
    uint64_t span = w->settings.span_bytes == 0 ? UINT64_MAX : w->settings.span_bytes;

    for (uint32_t d = 0; d < w->settings.disks; d++)
        span = w->sizes[d] < span ? w->sizes[d] : span;
    if (span / BLOCK_BYTES < 3)
        give_up("a disk is too small");
    w->run.disks = w->settings.disks;
    w->run.slots = span / BLOCK_BYTES - 1;
    w->run.started = machine_time_ns();
    if (getrandom(&w->run.id, sizeof(w->run.id), GRND_INSECURE) != sizeof(w->run.id))
        w->run.id = w->run.started;
    write_supers(w);
    w->next = 1;
    printf("new run=%016" PRIx64 "\n", w->run.id);
}

static void
find_run(struct writer *w)
{
    struct scan_disk disks[BLOCK_DISKS_MAX];
    struct scan_result r;
    char message[256];

    for (uint32_t d = 0; d < w->settings.disks; d++)
        disks[d] = (struct scan_disk){ .fd = w->fds[d], .name = w->names[d] };
    switch (scan_disks(disks, w->settings.disks, &r, message, sizeof(message))) {
    case SCAN_FAILED:
        give_up(message);
        break;
    case SCAN_NO_RUN:
        begin_run(w);
        break;
    case SCAN_OK:
        printf("found run=%016" PRIx64 " highest=%" PRIu64 " held=%" PRIu64
               " missing=%" PRIu64 " torn=%" PRIu64 " order=%" PRIu64
               " misplaced=%" PRIu64 " time=%" PRIu64 "\n",
               r.run.id, r.highest, r.held, r.missing, r.torn, r.order, r.misplaced,
               r.newest_time_ns);
        w->run = r.run;
        w->next = r.highest + 1;
        write_supers(w);
        break;
    }
    w->order = block_order(&w->run);
}

static int
compare_samples(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void
print_latency(struct writer *w, uint64_t now)
{
    unsigned n = w->n_samples;

    if (n == 0 || now - w->latency_printed_ns < LATENCY_NS)
        return;
    qsort(w->samples, n, sizeof(w->samples[0]), compare_samples);
    printf("lat %u %u %u %u\n", w->samples[n / 2], w->samples[(uint64_t)n * 99 / 100],
           w->samples[n - 1], n);
    w->n_samples = 0;
    w->latency_printed_ns = now;
}

static void
print_ack(struct writer *w, uint64_t now)
{
    if (w->durable == w->acked)
        return;
    printf("ack %" PRIu64 " %" PRIu64 "\n", w->durable, w->durable_time_ns);
    w->acked = w->durable;
    w->ack_printed_ns = now;
}

static void
write_next(struct writer *w)
{
    uint64_t time_ns, begun, ended;

    pthread_mutex_lock(&writing);
    time_ns = machine_time_ns();
    block_make(&w->run, w->next, time_ns, w->settings.half, w->block);
    begun = machine_ticks_ns();
    if (write_block(w, block_disk(&w->run, w->next),
                    block_slot(&w->run, w->order, w->next))) {
        ended = machine_ticks_ns();
        if (w->n_samples < SAMPLES_MAX)
            w->samples[w->n_samples++] = (uint32_t)((ended - begun) / 1000);
        w->durable = w->next++;
        w->durable_time_ns = time_ns;
        if (ended - w->ack_printed_ns >= ACK_NS)
            print_ack(w, ended);
        print_latency(w, ended);
    }
    pthread_mutex_unlock(&writing);
}

static void
write_until_stopped(struct writer *w)
{
    uint64_t step_ns =
        w->settings.rate > 0 ? (uint64_t)((double)NS_PER_S / w->settings.rate) : 0;
    uint64_t due = machine_ticks_ns();

    w->latency_printed_ns = due;
    printf("start number=%" PRIu64 " rate=%g slots=%" PRIu64 "\n", w->next,
           w->settings.rate, w->run.slots);
    while (!atomic_load(&stopping)) {
        uint64_t now = machine_ticks_ns();

        if (due > now + ACK_NS) { /* a slow writer still hears the power button */
            machine_wait_until_ns(now + ACK_NS);
            continue;
        }
        if (due > now)
            machine_wait_until_ns(due);
        else if (now - due > CATCH_UP_NS)
            due = now;
        due += step_ns;
        write_next(w);
    }
    print_ack(w, machine_ticks_ns());
}

static void
start_agent(const struct writer *w)
{
    static const char *const faults[] = {
        [AGENT_FREEZE_HANGS] = "freeze-hangs",
        [AGENT_FREEZE_FAILS] = "freeze-fails",
        [AGENT_THAW_FAILS] = "thaw-fails",
        [AGENT_FREEZE_LATE] = "freeze-late",
        [AGENT_FREEZE_SLOW] = "freeze-slow",
        [AGENT_SILENT] = "silent",
        [AGENT_DIES] = "dies",
    };
    struct agent_settings agent = { .writing = &writing, .shutdown = stop_pressed };

    for (int i = AGENT_FREEZE_HANGS; i <= AGENT_DIES; i++)
        if (strcmp(w->settings.fault, faults[i]) == 0)
            agent.fault = (enum agent_fault)i;
    agent_start(&agent);
}

int
main(void)
{
    static struct writer w;

    setvbuf(stdout, NULL, _IOLBF, 4096);
    signal(SIGPIPE, SIG_IGN);
    w.settings = machine_settings();
    w.block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    if (w.block == NULL)
        give_up("no memory");
    machine_clock_start();
    machine_button_start(w.settings.deaf ? looked_away : stop_pressed);
    start_agent(&w);
    files_start();
    firmware_count_boot();
    if (w.settings.rate == 0) {
        printf("idle\n");
        idle_for_ever();
    }
    open_disks(&w);
    find_run(&w);
    write_until_stopped(&w);
    printf("bye\n");
    machine_power_off();
}
