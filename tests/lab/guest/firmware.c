/* What the guest's firmware keeps for it; see firmware.h. */

#include "firmware.h"

#include <endian.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* --- the UEFI variable ---------------------------------------------------------- */

#define VARIABLE "/sys/firmware/efi/efivars/LabBoots-7d9e0c52-3a6b-4f1e-9c8d-2b5a4e6f7081"
/* Kept over a boot, for the firmware and the system. */
#define VARIABLE_ATTRIBUTES 7

struct variable {
    uint32_t attributes;
    uint32_t count;
};

static uint32_t
count_in_variable(void)
{
    struct variable v = { .attributes = VARIABLE_ATTRIBUTES };
    int fd = open(VARIABLE, O_RDONLY | O_CLOEXEC);
    int flags = 0;
    bool ok;

    if (fd >= 0) {
        if (read(fd, &v, sizeof(v)) != sizeof(v))
            v.count = 0;
        /* The kernel protects variables that it does not know. */
        if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
            flags &= ~FS_IMMUTABLE_FL;
            ioctl(fd, FS_IOC_SETFLAGS, &flags);
        }
        close(fd);
    }
    v.count++;
    fd = open(VARIABLE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ok = fd >= 0 && write(fd, &v, sizeof(v)) == sizeof(v);
    if (fd >= 0)
        close(fd);
    return ok ? v.count : 0;
}

/* --- the TPM's counter ---------------------------------------------------------- */

#define TPM            "/dev/tpm0"
#define TPM_SESSIONS   0x8002
#define TPM_OWNER      0x40000001
#define TPM_PASSWORD   0x40000009
#define TPM_INDEX      0x01500001
#define TPM_SHA256     0x000b
#define TPM_COUNTER    0x02040014 /* a counter; read and written by its empty password */
#define TPM_DEFINE     0x0000012a
#define TPM_INCREMENT  0x00000134
#define TPM_READ       0x0000014e
#define TPM_VALUE_AT   16 /* in the answer to a read: header, two sizes */
#define TPM_HEADER     10
#define COUNTER_BYTES  8
#define PASSWORD_BYTES 9
#define PUBLIC_BYTES   14
#define ANSWER_BYTES   4096

struct command {
    uint8_t bytes[128];
    size_t n;
};

static void
put16(struct command *c, uint16_t v)
{
    v = htobe16(v);
    memcpy(c->bytes + c->n, &v, sizeof(v));
    c->n += sizeof(v);
}

static void
put32(struct command *c, uint32_t v)
{
    v = htobe32(v);
    memcpy(c->bytes + c->n, &v, sizeof(v));
    c->n += sizeof(v);
}

/* Who it is that asks: an empty password. */
static void
put_password(struct command *c)
{
    put32(c, PASSWORD_BYTES);
    put32(c, TPM_PASSWORD);
    put16(c, 0);
    c->bytes[c->n++] = 0;
    put16(c, 0);
}

static void
begin(struct command *c, uint32_t code)
{
    c->n = 0;
    put16(c, TPM_SESSIONS);
    put32(c, 0); /* its length, once it is known */
    put32(c, code);
}

/* True if the TPM did it; *ret is then its answer. */
static bool
ask(int fd, struct command *c, uint8_t ret[ANSWER_BYTES])
{
    uint32_t length = htobe32((uint32_t)c->n), result = 1;

    memcpy(c->bytes + 2, &length, sizeof(length));
    if (write(fd, c->bytes, c->n) != (ssize_t)c->n)
        return false;
    if (read(fd, ret, ANSWER_BYTES) < TPM_HEADER)
        return false;
    memcpy(&result, ret + 6, sizeof(result));
    return result == 0;
}

/* Fails when it is there already, which is no matter. */
static void
define_counter(int fd, uint8_t answer[ANSWER_BYTES])
{
    struct command c;

    begin(&c, TPM_DEFINE);
    put32(&c, TPM_OWNER);
    put_password(&c);
    put16(&c, 0);
    put16(&c, PUBLIC_BYTES);
    put32(&c, TPM_INDEX);
    put16(&c, TPM_SHA256);
    put32(&c, TPM_COUNTER);
    put16(&c, 0);
    put16(&c, COUNTER_BYTES);
    (void)ask(fd, &c, answer);
}

static void
begin_on_counter(struct command *c, uint32_t code)
{
    begin(c, code);
    put32(c, TPM_INDEX);
    put32(c, TPM_INDEX);
    put_password(c);
}

static uint64_t
count_in_tpm(int fd)
{
    uint8_t answer[ANSWER_BYTES] = { 0 };
    struct command c;
    uint64_t value;

    define_counter(fd, answer);
    begin_on_counter(&c, TPM_INCREMENT);
    if (!ask(fd, &c, answer))
        return 0;
    begin_on_counter(&c, TPM_READ);
    put16(&c, COUNTER_BYTES);
    put16(&c, 0);
    if (!ask(fd, &c, answer))
        return 0;
    memcpy(&value, answer + TPM_VALUE_AT, sizeof(value));
    return be64toh(value);
}

void
firmware_count_boot(void)
{
    int tpm = open(TPM, O_RDWR | O_CLOEXEC);
    bool uefi = access("/sys/firmware/efi", F_OK) == 0;
    uint64_t in_tpm = 0;

    if (tpm >= 0) {
        in_tpm = count_in_tpm(tpm);
        close(tpm);
    }
    if (tpm >= 0 || uefi)
        printf("firmware uefi=%u tpm=%llu\n", uefi ? count_in_variable() : 0,
               (unsigned long long)in_tpm);
}
