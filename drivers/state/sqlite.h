/*
 * The state driver for one host: documents in one SQLite database.
 *
 * Owns the database file and its -wal and -shm companions (all mode 0600) and
 * one connection, which all threads share under a lock. A damaged database is
 * reported with ERROR_STATE and left exactly as it is: it is never repaired,
 * emptied or made anew behind the operator's back.
 */
#ifndef DRIVERS_STATE_SQLITE_H
#define DRIVERS_STATE_SQLITE_H

#include "drivers/state.h"

#define STATE_SQLITE_SCHEMA 1

/*
 * Opens the database at path, or makes it if there is none; the folder must
 * exist. ERROR_STATE: damaged, not ours, or of a newer virt-dr. End with
 * (*ret)->ops->close().
 */
bool state_sqlite_open(const char *path, struct state **ret, struct error **err);

#endif
