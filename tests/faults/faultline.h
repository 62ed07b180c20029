/*
 * What faultline.so, the programs that it is loaded into, and the runner share:
 * one file, mapped by all of them.
 *
 * faultline.so counts the calls that change what is stored below a folder, for
 * each kind of process by itself, and lets a fault happen at one of them. The
 * runner fills in the plan before it starts the subject; the subject says which
 * phase it is in.
 *
 *     FAULTLINE_STATE  the file; without it nothing is counted
 *     FAULTLINE_ROOT   the folder, as realpath() gives it
 */
#ifndef TESTS_FAULTS_FAULTLINE_H
#define TESTS_FAULTS_FAULTLINE_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#define FAULTLINE_STATE "FAULTLINE_STATE"
#define FAULTLINE_ROOT  "FAULTLINE_ROOT"

/* XFS_IOC_GOINGDOWN, of which ext4 has a copy; what its log has not yet is lost too. */
#define FAULTLINE_GOING_DOWN  _IOR('X', 125, uint32_t)
#define FAULTLINE_NO_LOGFLUSH 2

#define FAULTLINE_NAME_MAX  32
#define FAULTLINE_PATH_MAX  256
#define FAULTLINE_MAX_STEPS 8192 /* that are remembered */
#define FAULTLINE_MAX_PIDS  512
#define FAULTLINE_SECTOR    512u /* no write is torn within one */

enum faultline_process {
    FAULTLINE_STORE,  /* the subject */
    FAULTLINE_IMG,    /* its qemu-img */
    FAULTLINE_DAEMON, /* its qemu-storage-daemon */
    FAULTLINE_N_PROCESSES,
};

enum faultline_action {
    FAULTLINE_COUNT,      /* nothing happens */
    FAULTLINE_KILL,       /* the subject is killed; its helpers go on */
    FAULTLINE_TORN,       /* as KILL_ALL, behind the first sectors of a write */
    FAULTLINE_KILL_CHILD, /* the helpers are killed; the subject goes on */
    FAULTLINE_KILL_ALL,
    FAULTLINE_FULL, /* nothing can be written any more until `full` is taken back */
    FAULTLINE_CUT,  /* the file system loses what was not synced; all are killed */
    FAULTLINE_N_ACTIONS,
};

struct faultline_step {
    char phase[FAULTLINE_NAME_MAX];
    char call[FAULTLINE_NAME_MAX];
    char file[FAULTLINE_NAME_MAX]; /* without its folder */
    uint32_t process;
    uint32_t number;   /* among those of this kind of process, from 1 */
    uint32_t promises; /* that were on record */
    uint32_t bytes;    /* that are written */
    uint32_t helped;   /* a helper was there; only known if nothing is planned */
};

struct faultline_state {
    /* the plan */
    uint32_t action;
    uint32_t at_process;
    uint32_t at_number;
    char ballast[FAULTLINE_PATH_MAX]; /* a file that makes the storage full really */

    /* the subject */
    _Atomic pid_t subject;
    char phase[FAULTLINE_NAME_MAX];
    _Atomic uint32_t promises; /* so many it has made */

    /* what happened */
    _Atomic uint32_t counts[FAULTLINE_N_PROCESSES];
    _Atomic uint32_t fired; /* is the step there? */
    _Atomic uint32_t full;
    _Atomic uint32_t n_refused; /* steps of the scenario that failed for want of space */
    struct faultline_step fired_at;
    _Atomic uint32_t n_pids;
    _Atomic pid_t pids[FAULTLINE_MAX_PIDS]; /* of the helpers */
    _Atomic uint32_t n_steps;
    struct faultline_step steps[FAULTLINE_MAX_STEPS];
};

#endif
