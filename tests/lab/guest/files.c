/* Files that come and go; see files.h. */

#include "files.h"
#include "machine.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILES_KEPT 64
#define PAUSE_NS   20000000ULL

static bool
is_there(void)
{
    struct stat here, above;

    return stat(FILES_FOLDER, &here) == 0 && stat("/", &above) == 0 &&
           here.st_dev != above.st_dev;
}

static bool
control(unsigned long request)
{
    int fd = open(FILES_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok;

    if (!is_there()) {
        if (fd >= 0)
            close(fd);
        return true;
    }
    ok = fd >= 0 && ioctl(fd, request, 0) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

bool
files_freeze(void)
{
    return control(FIFREEZE);
}

bool
files_thaw(void)
{
    return control(FITHAW);
}

/* A name appears only with its whole content behind it, and an old one goes. */
static void
write_file(uint64_t number)
{
    char name[64], content[1024];
    int fd = open(FILES_FOLDER "/new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    snprintf(content, sizeof(content), "file %" PRIu64 "\n", number);
    if (fd < 0 || write(fd, content, sizeof(content)) != sizeof(content))
        printf("error cannot write file %" PRIu64 "\n", number);
    if (fd >= 0)
        close(fd);
    snprintf(name, sizeof(name), FILES_FOLDER "/%" PRIu64, number);
    rename(FILES_FOLDER "/new", name);
    if (number < FILES_KEPT)
        return;
    snprintf(name, sizeof(name), FILES_FOLDER "/%" PRIu64, number - FILES_KEPT);
    unlink(name);
}

static void *
files_thread(void *arg)
{
    (void)arg;
    for (uint64_t number = 0;; number++) {
        write_file(number);
        machine_wait_until_ns(machine_ticks_ns() + PAUSE_NS);
    }
    return NULL;
}

void
files_start(void)
{
    pthread_t thread;

    if (is_there() && pthread_create(&thread, NULL, files_thread, NULL) == 0)
        pthread_detach(thread);
}
