/*
 * A VM that was taken to another host, by a live migration above all: its
 * replication goes along, into the same replica.
 *
 * The old source sees that the VM has left, asks its peers which of them runs it,
 * and hands the replication over (ops_handover.c): the new source stores it as an
 * offer, the target is told by the old source, and by nobody else, who sends from now
 * on, under an epoch higher by one, and the old source keeps only the record that the
 * VM must not be started there (PHASE_MOVED). What the new source has been offered is
 * nothing before the target knows it: its exchanges are refused until then. So at each
 * moment one host may send (I3), and each step may be cut and done again (I5).
 *
 * Any worker thread unless said otherwise; most functions ask libvirt or peers.
 */
#ifndef DAEMON_HANDOVER_H
#define DAEMON_HANDOVER_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/replication.h"
#include "drivers/hypervisor.h"

/* --- the old source ---------------------------------------------------------- */

/*
 * Is a VM that does not run here (domain NULL: is not known here) still this host's?
 * False if it has left: it is handed over where that is possible, and the error says
 * what happens, or what is needed. Peers are asked at times only.
 */
bool handover_look(struct daemon *d, struct replication *r,
                   const struct hv_domain *domain, struct error **err);

/* The target takes from host `to` now: this one sends and starts the VM no more. Where
   the VM is not even defined any more, nothing of the replication stays. */
bool handover_leave(struct daemon *d, struct replication *r, const char *to,
                    uint64_t epoch, struct error **err);

/* --- the new source ------------------------------------------------------------ */

/* What the old one sends; the caller's to put. Under r->lock. */
struct json_object *handover_offer(const struct replication *r);

/*
 * That came from `from`, a peer. The VM must run here and the target must be paired with
 * this host. True as well if it was taken before.
 */
bool handover_accept(struct daemon *d, const char *from, struct json_object *offer,
                     struct error **err);

/* Adds to an error of the target's that it has not been told yet. Returns false. */
bool handover_explain(struct daemon *d, struct replication *r, struct error **err);

/* The target takes from us: durable. */
bool handover_confirm(struct daemon *d, struct replication *r, struct error **err);

/* --- the target ------------------------------------------------------------------ */

/* `caller` says that `host` is the source from now on; whoever calls has claimed r. */
bool handover_set_source(struct daemon *d, struct replication *r, const char *caller,
                         const char *host, uint64_t epoch, struct error **err);

/* Why nothing is taken from this peer; returns false. Under r->lock. */
bool handover_refuse(struct daemon *d, const struct replication *r, const char *peer_id,
                     struct error **err);

/* r->former and that host, which was the source until now; the caller's to put. Under
   r->lock. */
struct json_object *
handover_with_former(const struct replication *r, const char *peer_id);

/* What a former source has to hear in a contact: who is its VM's source now, or that this
   host is, to which it was failed over. NULL: it was none. */
struct json_object *handover_say(struct replication *r, const char *peer_id);

/* The other end of that. */
void handover_hear(struct daemon *d, struct replication *r, struct json_object *said);

#endif
