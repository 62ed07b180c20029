/*
 * What a command takes, as data: an option (--name VALUE) or a positional
 * argument. The tables are constant; help, the manual's test and completion
 * read them too.
 */
#ifndef CLIENT_PARAM_H
#define CLIENT_PARAM_H

#include <stdint.h>

#include "common/error.h"

enum param_type {
    PARAM_FLAG, /* takes no value */
    PARAM_STRING,
    PARAM_INT,      /* a plain number */
    PARAM_DURATION, /* 5s, 15m; a value in ms */
    PARAM_SIZE,     /* 20GiB; a value in bytes */
    PARAM_FORMAT,   /* the name of an output format */
    PARAM_PEER,     /* a peer's name or id */
    PARAM_DOMAIN,   /* a domain of the local libvirt */
    PARAM_VM,       /* a replication's id, its VM's name or UUID */
    PARAM_TASK,     /* a task's id */
};

/* Where a shell finds the values to offer. */
enum param_completer {
    COMPLETE_NOTHING,
    COMPLETE_FILE,
    COMPLETE_FORMAT,
    COMPLETE_COMMAND,
    COMPLETE_PEER,
    COMPLETE_DOMAIN,
    COMPLETE_VM,
    COMPLETE_TASK,
};

struct param {
    const char *name; /* NULL ends a table */
    char short_name;  /* 0: none */
    enum param_type type;
    bool required;
    bool repeated;     /* may be given more than once */
    const char *value; /* what help calls the value; NULL for flags */
    const char *help;
    enum param_completer completer;
};

/* The row of that name; params may be NULL. NULL: there is none. */
const struct param *param_find(const struct param *params, const char *name);
const struct param *param_find_short(const struct param *params, char short_name);

/*
 * Is text a value for p? *ret_number is its number, ms or bytes; 0 for types
 * that are only text. ERROR_USAGE naming the parameter.
 */
bool param_check(const struct param *p, const char *text, int64_t *ret_number,
                 struct error **err);

#endif
