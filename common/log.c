#include "common/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <xxhash.h>

/* Else every entry would say that it comes from a line of this file. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "common/text.h"
#include "common/units.h"

#define THROTTLE_WINDOW_MS 10000
#define THROTTLE_SLOTS     256
#define THROTTLE_PROBES    4    /* slots that one key may use */
#define MAX_SENTENCE       3000 /* so that a line is one atomic write, even to a pipe */
#define MAX_VALUE          128  /* of a field */
#define N_FIELDS           6

/* One kind of line about one subject. */
struct slot {
    uint64_t key; /* 0: free */
    int64_t start_ms;
    unsigned written;
    unsigned dropped;
};

/* All there is of state: the level, the sink, and the throttle's table. */
static struct {
    _Atomic(enum log_level) level;
    atomic_bool journal;
    pthread_mutex_t lock;
    struct slot slots[THROTTLE_SLOTS];
} logger = { .level = LOG_LEVEL_INFO, .lock = PTHREAD_MUTEX_INITIALIZER };

static const struct {
    const char *name;
    int priority; /* syslog's */
} levels[] = {
    [LOG_LEVEL_ERROR] = { "ERROR", 3 },
    [LOG_LEVEL_WARN] = { "WARN", 4 },
    [LOG_LEVEL_INFO] = { "INFO", 6 },
    [LOG_LEVEL_DEBUG] = { "DEBUG", 7 },
};

struct line {
    enum log_level level;
    const struct log_ctx *ctx; /* may be NULL */
    const char *event;
    const char *code; /* of an error; else NULL */
    unsigned left_out;
    const char *sentence;
};

struct field {
    const char *name;    /* on stderr */
    const char *journal; /* in the journal */
    const char *value;   /* may be NULL */
};

static void
fields_of(const struct line *l, struct field ret[N_FIELDS])
{
    static const struct log_ctx nothing;
    const struct log_ctx *ctx = l->ctx != NULL ? l->ctx : &nothing;
    const struct field fields[N_FIELDS] = {
        { "vm", "VIRT_DR_VM", ctx->vm },
        { "replication", "VIRT_DR_REPLICATION", ctx->replication },
        { "task", "VIRT_DR_TASK", ctx->task },
        { "step", "VIRT_DR_STEP", ctx->step },
        { "peer", "VIRT_DR_PEER", ctx->peer },
        { "code", "VIRT_DR_CODE", l->code },
    };

    memcpy(ret, fields, sizeof fields);
}

/* The journal tells us with device and inode that stderr is its socket
   (sd_journal_stream_fd(3)): a child whose stderr was redirected inherits the variable,
   but not the socket. */
static bool
stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    AUTOFREE(char) *ours = NULL;
    struct stat st;

    if (stream == NULL || fstat(STDERR_FILENO, &st) < 0)
        return false;
    ours = mem_printf("%llu:%llu", (unsigned long long)st.st_dev,
                      (unsigned long long)st.st_ino);
    return strcmp(stream, ours) == 0;
}

void
log_init(enum log_level level)
{
    atomic_store(&logger.journal, stderr_is_journal());
    log_set_level(level);
}

void
log_set_level(enum log_level level)
{
    atomic_store(&logger.level, level);
}

/* key="value"; the quotes only where a reader could not tell its end. */
static char *
field_text(const struct field *f)
{
    AUTOFREE(char) *value = mem_printf("%.*s", MAX_VALUE, f->value);
    bool plain = value[0] != '\0' && strpbrk(value, " \"=:") == NULL;

    text_make_printable(value);
    for (char *p = value; *p != '\0'; p++)
        if (*p == '"')
            *p = '\'';
    return mem_printf(plain ? " %s=%s" : " %s=\"%s\"", f->name, value);
}

static void
write_stderr(const struct line *l)
{
    AUTOFREE(char) *text = NULL;
    char time[UNITS_TEXT_MAX];
    struct field fields[N_FIELDS];
    char *parts[N_FIELDS];
    ssize_t ignored;

    fields_of(l, fields);
    for (size_t i = 0; i < N_FIELDS; i++)
        parts[i] = fields[i].value != NULL ? field_text(&fields[i]) : mem_strdup("");
    text = mem_printf("%s %-5s %s%s%s%s%s%s%s : %s\n",
                      units_format_time_ms(units_now_ms(), time), levels[l->level].name,
                      l->event, parts[0], parts[1], parts[2], parts[3], parts[4],
                      parts[5], l->sentence);
    ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored; /* there is nowhere to say so */
    for (size_t i = 0; i < N_FIELDS; i++)
        free(parts[i]);
}

static void
write_journal(const struct line *l)
{
    char *items[4 + N_FIELDS];
    struct iovec iov[4 + N_FIELDS];
    struct field fields[N_FIELDS];
    int n = 0;

    items[n++] = mem_printf("MESSAGE=%s", l->sentence);
    items[n++] = mem_printf("PRIORITY=%d", levels[l->level].priority);
    items[n++] = mem_printf("VIRT_DR_EVENT=%s", l->event);
    if (l->left_out > 0)
        items[n++] = mem_printf("VIRT_DR_LEFT_OUT=%u", l->left_out);
    fields_of(l, fields);
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].value != NULL)
            items[n++] =
                mem_printf("%s=%.*s", fields[i].journal, MAX_VALUE, fields[i].value);
    for (int i = 0; i < n; i++)
        iov[i] = (struct iovec){ .iov_base = items[i], .iov_len = strlen(items[i]) };
    sd_journal_sendv(iov, n);
    for (int i = 0; i < n; i++)
        free(items[i]);
}

/* Event, level and subject; the sentence and the step differ too often to throttle by
 * them. */
static uint64_t
key_of(const struct line *l)
{
    struct field fields[N_FIELDS];
    XXH64_hash_t key;

    fields_of(l, fields);
    key = XXH3_64bits_withSeed(l->event, strlen(l->event), (XXH64_hash_t)l->level);
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].value != NULL)
            key = XXH3_64bits_withSeed(fields[i].value, strlen(fields[i].value),
                                       key + i + 1);
    return key == 0 ? 1 : key;
}

/* The slot of the key: its own, else a free one, else the one that began first. */
static struct slot *
slot_of(uint64_t key)
{
    struct slot *oldest = NULL;

    for (uint64_t i = 0; i < THROTTLE_PROBES; i++) {
        struct slot *s = &logger.slots[(key + i) % THROTTLE_SLOTS];

        if (s->key == key)
            return s;
        if (oldest == NULL ||
            (oldest->key != 0 && (s->key == 0 || s->start_ms < oldest->start_ms)))
            oldest = s;
    }
    *oldest = (struct slot){ .key = key, .start_ms = INT64_MIN };
    return oldest;
}

/* May the line pass? If so, *ret_left_out of its kind did not since the last one. */
static bool
throttle(uint64_t key, unsigned *ret_left_out)
{
    int64_t now = units_monotonic_ms();
    struct slot *s;
    bool passes;

    pthread_mutex_lock(&logger.lock);
    s = slot_of(key);
    if (s->start_ms < now - THROTTLE_WINDOW_MS) {
        *ret_left_out = s->dropped;
        *s = (struct slot){ .key = key, .start_ms = now };
    }
    passes = s->written < LOG_BURST;
    if (passes)
        s->written++;
    else
        s->dropped++;
    pthread_mutex_unlock(&logger.lock);
    return passes;
}

/* Writes the line, whose sentence is a buffer of our own. */
static void
emit(struct line *l, char *sentence)
{
    AUTOFREE(char) *longer = NULL;

    if (!throttle(key_of(l), &l->left_out))
        return;
    if (strlen(sentence) > MAX_SENTENCE)
        memcpy(sentence + MAX_SENTENCE - 3, "...", 4);
    text_make_printable(sentence);
    l->sentence = sentence;
    if (l->left_out > 0)
        l->sentence = longer = mem_printf("%s (%u more like this were left out before)",
                                          sentence, l->left_out);
    if (atomic_load(&logger.journal))
        write_journal(l);
    else
        write_stderr(l);
}

void
log_write(enum log_level level, const struct log_ctx *ctx, const char *event,
          const char *format, ...)
{
    struct line l = { .level = level, .ctx = ctx, .event = event };
    AUTOFREE(char) *sentence = NULL;
    int saved_errno = errno;
    va_list args;

    if (level > atomic_load(&logger.level))
        return;
    va_start(args, format);
    sentence = mem_vprintf(format, args);
    va_end(args);
    emit(&l, sentence);
    errno = saved_errno;
}

static void
write_error(enum log_level level, const struct log_ctx *ctx, const char *event,
            const struct error *e)
{
    struct line l = { .level = level, .ctx = ctx, .event = event };
    const char *prefix = level == LOG_LEVEL_WARN ? "ignoring: " : "";
    AUTOFREE(char) *sentence = mem_printf("%s%s", prefix, error_message(e));

    l.code = error_code_string(error_code(e));
    if (level <= atomic_load(&logger.level))
        emit(&l, sentence);
}

void
log_failure(const struct log_ctx *ctx, const char *event, const struct error *e)
{
    write_error(LOG_LEVEL_ERROR, ctx, event, e);
}

void
log_ignore(const struct log_ctx *ctx, const char *event, struct error **err)
{
    write_error(LOG_LEVEL_WARN, ctx, event, *err);
    error_clear(err);
}
