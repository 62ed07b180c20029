#include "drivers/store/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "drivers/store/folder.h"

/* What O_DIRECT wants of offset, length and memory, on any disk there is. */
#define BLOCK_BYTES 4096u

/* Content, or a hole if data is not to be looked at. */
struct piece {
    struct writer_file file;
    bool hole;
    uint64_t offset;
    uint64_t length; /* 0: nothing yet */
    uint8_t *data;   /* WRITER_PIECE_BYTES; NULL until needed */
};

/* A ring: n pieces from `first` on wait to be written, the one behind them is filled. */
struct writer {
    struct piece pieces[WRITER_PIECES];
    size_t next; /* the one that is filled; the caller's alone */
    pthread_t thread;

    pthread_mutex_t lock; /* what follows, and the pieces that wait */
    pthread_cond_t changed;
    size_t first;
    size_t n;
    bool stopping;
    struct error *error; /* nothing is written any more until it was told */
};

/* --- on the thread ------------------------------------------------------------- */

static bool
write_all(int fd, const struct piece *p, const uint8_t *data, uint64_t offset,
          uint64_t length, struct error **err)
{
    while (length > 0) {
        ssize_t n = pwrite(fd, data, length, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return folder_errno(err, "write disk '%s'", p->file.target);
        data += n;
        offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return true;
}

/* Writes past the page cache what can be; *ret is how much of the piece that was. */
static bool
write_direct(const struct piece *p, uint64_t *ret, struct error **err)
{
    uint64_t done = 0, length = p->length - p->length % BLOCK_BYTES;

    if (p->file.direct_fd < 0 || p->offset % BLOCK_BYTES != 0)
        length = 0;
    while (done < length) {
        ssize_t n = pwrite(p->file.direct_fd, p->data + done, length - done,
                           (off_t)(p->offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EINVAL)
            return folder_errno(err, "write disk '%s'", p->file.target);
        if (n > 0)
            done += (uint64_t)n;
        /* It wants larger blocks than we know of, or stopped within one. */
        if (n <= 0 || n % BLOCK_BYTES != 0)
            break;
    }
    *ret = done;
    return true;
}

/* For file systems that cannot punch holes. */
static bool
write_zeros(const struct piece *p, struct error **err)
{
    static const uint8_t zeros[64 << 10];

    for (uint64_t done = 0; done < p->length; done += sizeof zeros)
        if (!write_all(p->file.fd, p, zeros, p->offset + done,
                       MIN(p->length - done, sizeof zeros), err))
            return false;
    return true;
}

static bool
punch(const struct piece *p, struct error **err)
{
    if (fallocate(p->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)p->offset, (off_t)p->length) == 0)
        return true;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return folder_errno(err, "punch a hole into disk '%s'", p->file.target);
    return write_zeros(p, err);
}

static bool
write_piece(const struct piece *p, struct error **err)
{
    uint64_t done = 0;

    if (p->hole)
        return punch(p, err);
    return write_direct(p, &done, err) &&
           write_all(p->file.fd, p, p->data + done, p->offset + done, p->length - done,
                     err);
}

static void *
thread_main(void *opaque)
{
    struct writer *w = opaque;
    struct error *e = NULL;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->n == 0 && !w->stopping)
            pthread_cond_wait(&w->changed, &w->lock);
        if (w->stopping)
            break;
        if (w->error == NULL) {
            pthread_mutex_unlock(&w->lock);
            write_piece(&w->pieces[w->first], &e);
            pthread_mutex_lock(&w->lock);
            w->error = TAKE(e);
        }
        w->first = (w->first + 1) % WRITER_PIECES;
        w->n--;
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- the caller's side ------------------------------------------------------------ */

struct writer *
writer_new(void)
{
    struct writer *w = NEW(struct writer);
    sigset_t all, old;

    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    sigfillset(&all); /* signals are the loop thread's business */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&w->thread, NULL, thread_main, w) != 0)
        abort();
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_setname_np(w->thread, "writer");
    return w;
}

void
writer_free(struct writer *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    for (size_t i = 0; i < WRITER_PIECES; i++)
        free(w->pieces[i].data);
    error_free(w->error);
    free(w);
}

/* Waits until no more than n pieces wait. Behind one that failed none may: they would
   be written, or fail, once the error is told, amid what is asked for then. */
static bool
wait_for(struct writer *w, size_t n, struct error **err)
{
    struct error *e;

    pthread_mutex_lock(&w->lock);
    while (w->n > (w->error == NULL ? n : 0))
        pthread_cond_wait(&w->changed, &w->lock);
    e = TAKE(w->error);
    pthread_mutex_unlock(&w->lock);
    return e == NULL || error_propagate(err, e);
}

/* Hands the piece that is being filled to the thread, and waits for an empty one. */
static bool
submit(struct writer *w, struct error **err)
{
    bool ok;

    if (w->pieces[w->next].length == 0)
        return true;
    pthread_mutex_lock(&w->lock);
    w->n++;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    w->next = (w->next + 1) % WRITER_PIECES;
    ok = wait_for(w, WRITER_PIECES - 1, err);
    w->pieces[w->next].length = 0;
    return ok;
}

static void
start(struct writer *w, const struct writer_file *f, bool hole, uint64_t offset)
{
    struct piece *p = &w->pieces[w->next];

    p->file = *f;
    p->hole = hole;
    p->offset = offset;
    if (!hole && p->data == NULL &&
        posix_memalign((void **)&p->data, BLOCK_BYTES, WRITER_PIECE_BYTES) != 0)
        abort();
}

static bool
continues(const struct piece *p, const struct writer_file *f, uint64_t offset)
{
    return p->length > 0 && p->file.fd == f->fd && p->offset + p->length == offset;
}

void *
writer_place(struct writer *w, const struct writer_file *f, uint64_t offset,
             size_t length)
{
    struct piece *p = &w->pieces[w->next];

    if (length > WRITER_PIECE_BYTES - offset % WRITER_PIECE_BYTES)
        return NULL;
    if (p->length == 0)
        start(w, f, false, offset);
    else if (!continues(p, f, offset))
        return NULL;
    return p->data + p->length;
}

/* Pieces end where WRITER_PIECE_BYTES divides the offset. */
bool
writer_data(struct writer *w, const struct writer_file *f, uint64_t offset,
            const void *data, size_t length, struct error **err)
{
    const uint8_t *from = data;

    while (length > 0) {
        size_t part = MIN(length, WRITER_PIECE_BYTES - offset % WRITER_PIECE_BYTES);
        struct piece *p = &w->pieces[w->next];

        if (!continues(p, f, offset)) {
            if (!submit(w, err))
                return false;
            start(w, f, false, offset);
            p = &w->pieces[w->next];
        }
        if (from != p->data + p->length)
            memcpy(p->data + p->length, from, part);
        p->length += part;
        from += part;
        offset += part;
        length -= part;
        if (offset % WRITER_PIECE_BYTES == 0 && !submit(w, err))
            return false;
    }
    return true;
}

bool
writer_zero(struct writer *w, const struct writer_file *f, uint64_t offset,
            uint64_t length, struct error **err)
{
    if (!submit(w, err))
        return false;
    start(w, f, true, offset);
    w->pieces[w->next].length = length;
    return submit(w, err);
}

bool
writer_drain(struct writer *w, struct error **err)
{
    return submit(w, err) && wait_for(w, 0, err);
}
