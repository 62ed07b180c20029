/*
 * A clock that can be set for one program: preloaded into it, this adds an offset to
 * the time of day, and leaves monotonic clocks alone.
 *
 *     LD_PRELOAD=.../clock_offset.so CLOCK_OFFSET_FILE=FILE virtdrd
 *     truncate -s MILLISECONDS FILE      # 3600000: right; 3599000: a second behind
 *
 * The file's size is the offset because it changes in one instant.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define RIGHT_MS  INT64_C(3600000)
#define NS_PER_S  INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

int clock_gettime(clockid_t id, struct timespec *ts);
int gettimeofday(struct timeval *restrict tv, void *restrict zone);
time_t time(time_t *ret);

static int64_t
offset_ns(void)
{
    const char *path = getenv("CLOCK_OFFSET_FILE");
    struct stat st;

    if (path == NULL || stat(path, &st) < 0)
        return 0;
    return ((int64_t)st.st_size - RIGHT_MS) * NS_PER_MS;
}

static void
shift(struct timespec *ts)
{
    int64_t ns = (int64_t)ts->tv_sec * NS_PER_S + ts->tv_nsec + offset_ns();

    ts->tv_sec = ns / NS_PER_S;
    ts->tv_nsec = ns % NS_PER_S;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
    int status = (int)syscall(SYS_clock_gettime, id, ts);

    if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        shift(ts);
    return status;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;
    int status = clock_gettime(CLOCK_REALTIME, &ts);

    (void)zone;
    if (status == 0)
        *tv = (struct timeval){ .tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000 };
    return status;
}

time_t
time(time_t *ret)
{
    struct timespec ts = { .tv_sec = -1 };

    clock_gettime(CLOCK_REALTIME, &ts);
    if (ret != NULL)
        *ret = ts.tv_sec;
    return ts.tv_sec;
}
