/* The command table: what virt-dr can do, in the order of its help. */
#include "client/command.h"

#include <string.h>

#include "client/handlers.h"
#include "client/point_options.h"
#include "client/retention_options.h"

static const struct param global_options[] = {
    { "connect", 'c', PARAM_STRING, .value = "URI",
      .help = "virtdrd's address: unix:///PATH or https://HOST:PORT" },
    { "cert", 0, PARAM_STRING, .value = "FILE", .completer = COMPLETE_FILE,
      .help = "our certificate (PEM), for https" },
    { "key", 0, PARAM_STRING, .value = "FILE", .completer = COMPLETE_FILE,
      .help = "its private key (PEM), for https" },
    { "fingerprint", 0, PARAM_STRING, .value = "HEX",
      .help = "SHA-256 of the certificate that the host must show" },
    { "ca", 0, PARAM_STRING, .value = "FILE", .completer = COMPLETE_FILE,
      .help = "the authority (PEM) that vouches for the host, instead of a fingerprint" },
    { "output", 'o', PARAM_FORMAT, .value = "FORMAT", .completer = COMPLETE_FORMAT,
      .help = "table (default) or json" },
    { "no-progress", 0, PARAM_FLAG, .help = "show no progress while waiting" },
    { "quiet", 'q', PARAM_FLAG,
      .help = "no sentences, no progress; of a list only the first column" },
    { "help", 'h', PARAM_FLAG, .help = "show the help, of the command if one is named" },
    { "version", 'V', PARAM_FLAG, .help = "show the version of virt-dr" },
    { NULL },
};

#define WAIT                                                                          \
    {                                                                                 \
        "wait", 'w', PARAM_FLAG, .help = "wait for the task and exit with its result" \
    }

static const struct param vm_argument[] = {
    { "VM", 0, PARAM_VM, .required = true, .completer = COMPLETE_VM,
      .help = "the VM's name or UUID, or the replication's id" },
    { NULL },
};

static const struct param task_argument[] = {
    { "TASK", 0, PARAM_TASK, .required = true, .completer = COMPLETE_TASK,
      .help = "the task's id" },
    { NULL },
};

static const struct param peer_argument[] = {
    { "PEER", 0, PARAM_PEER, .required = true, .completer = COMPLETE_PEER,
      .help = "the peer's name or id" },
    { NULL },
};

static const struct param token_argument[] = {
    { "TOKEN", 0, PARAM_STRING, .required = true,
      .help = "what peer-invite printed on the other host" },
    { NULL },
};

static const struct param domain_argument[] = {
    { "DOMAIN", 0, PARAM_DOMAIN, .required = true, .completer = COMPLETE_DOMAIN,
      .help = "the libvirt domain, by name or UUID" },
    { NULL },
};

static const struct param command_argument[] = {
    { "COMMAND", 0, PARAM_STRING, .completer = COMPLETE_COMMAND,
      .help = "the command to explain; without it, all are listed" },
    { NULL },
};

static const struct param invite_options[] = {
    { "expires", 0, PARAM_DURATION, .value = "DURATION",
      .help = "how long the token can be used (15m if not given)" },
    { NULL },
};

static const struct param protect_options[] = {
    { "to", 0, PARAM_PEER, .required = true, .value = "PEER", .completer = COMPLETE_PEER,
      .help = "the peer that keeps the replica" },
    { "rpo", 0, PARAM_DURATION, .value = "DURATION",
      .help = "how old the newest recovery point may become (5s if not given)" },
    { "storage", 0, PARAM_STRING, .value = "NAME",
      .help = "the peer's storage that takes the replica ('default' if not given)" },
    { "exclude-disk", 0, PARAM_STRING, .repeated = true, .value = "TARGET",
      .help = "leave this disk out (vdb); may be given more than once" },
    { "seed", 0, PARAM_STRING, .repeated = true, .value = "SEED",
      .help =
          "begin with what the peer's host has: a folder of export-seed, or vda=IMAGE" },
    { "consistent-every", 0, PARAM_STRING, .value = "WHEN",
      .help =
          "let the guest's agent prepare one of so many points, or one in each '5m'" },
    { "bandwidth", 0, PARAM_STRING, .value = "LIMIT",
      .help = "how much may be sent per second, and when (see bandwidth)" },
    RETENTION_OPTIONS,
    WAIT,
    { NULL },
};

static const struct param export_seed_arguments[] = {
    { "DOMAIN", 0, PARAM_DOMAIN, .required = true, .completer = COMPLETE_DOMAIN,
      .help = "the libvirt domain, by name or UUID" },
    { "FOLDER", 0, PARAM_STRING, .required = true, .completer = COMPLETE_FILE,
      .help = "where its disks are written to: absolute, empty or not there yet" },
    { NULL },
};

static const struct param export_seed_options[] = {
    { "no-record", 0, PARAM_FLAG,
      .help = "do not record what changes from then on: all is compared later" },
    WAIT,
    { NULL },
};

static const struct param unprotect_options[] = {
    { "force", 'f', PARAM_FLAG,
      .help = "also when the other side does not answer, or points are exported" },
    WAIT,
    { NULL },
};

static const struct param reverse_options[] = {
    { "to", 0, PARAM_PEER, .value = "PEER", .completer = COMPLETE_PEER,
      .help = "the host to replicate to, if not the one that it came from" },
    { "storage", 0, PARAM_STRING, .value = "NAME", .help = "storage there" },
    WAIT,
    { NULL },
};
#define AFTER_OPTIONS                                                        \
    { "auto-commit", 0, PARAM_DURATION, .value = "TIME",                     \
      .help = "make it final after that time, unless it was undone" },       \
    {                                                                        \
        "auto-undo", 0, PARAM_DURATION,                                      \
            .value = "TIME",                                                 \
            .help = "throw it away after that time, unless it was committed" \
    }
#define HERE_OPTIONS                                                                   \
    { "network",                                                                       \
      0,                                                                               \
      PARAM_STRING,                                                                    \
      .repeated = true,                                                                \
      .value = "THERE=HERE",                                                           \
      .help = "another network for its interfaces, over the configured ones" },        \
        { "address",                                                                   \
          0,                                                                           \
          PARAM_STRING,                                                                \
          .repeated = true,                                                            \
          .value = "MAC=IP",                                                           \
          .help = "the address that the libvirt network here gives to an interface" }, \
        AFTER_OPTIONS

static const struct param failover_options[] = {
    { "force", 'f', PARAM_FLAG,
      .help = "also when the source is reachable and runs the VM: --shutdown leave" },
    { "shutdown", 0, PARAM_STRING, .value = "POLICY",
      .help = "a source that runs the VM: refuse, leave, graceful or force" },
    { "timeout", 0, PARAM_DURATION, .value = "TIME",
      .help = "for the guest to shut down (default: 2m)" },
    { "no-fence", 0, PARAM_FLAG, .help = "do without the fence agent" },
    { "define-only", 0, PARAM_FLAG, .help = "define the VM, do not start it" },
    HERE_OPTIONS,
    POINT_OPTIONS,
    WAIT,
    { NULL },
};

static const struct param planned_options[] = {
    { "shutdown", 0, PARAM_STRING, .value = "POLICY",
      .help = "graceful (the default), or force if the guest does not" },
    { "timeout", 0, PARAM_DURATION, .value = "TIME",
      .help = "for the guest to shut down (default: 2m)" },
    { "no-reverse", 0, PARAM_FLAG,
      .help = "do not replicate it back: it is unprotected" },
    HERE_OPTIONS,
    WAIT,
    { NULL },
};

static const struct param failback_options[] = {
    { "shutdown", 0, PARAM_STRING, .value = "POLICY",
      .help = "graceful (the default), or force if the guest does not" },
    { "timeout", 0, PARAM_DURATION, .value = "TIME",
      .help = "for the guest to shut down (default: 2m)" },
    AFTER_OPTIONS,
    POINT_OPTIONS,
    WAIT,
    { NULL },
};

static const struct param commit_options[] = {
    { "no-reverse", 0, PARAM_FLAG,
      .help = "at the VM's home: do not replicate it from there again" },
    WAIT,
    { NULL },
};

static const struct param policy_options[] = {
    AFTER_OPTIONS,
    { "manual", 0, PARAM_FLAG, .help = "only the operator ends it" },
    { NULL },
};

static const struct param abandon_options[] = {
    { "force", 'f', PARAM_FLAG,
      .help = "without asking the other host: you know that the VM does not run there" },
    WAIT,
    { NULL },
};

static const struct param point_argument[] = {
    { "VM", 0, PARAM_VM, .required = true, .completer = COMPLETE_VM,
      .help = "the VM's name or UUID, or the replication's id" },
    { "POINT", 0, PARAM_STRING, .required = true,
      .help = "the recovery point's id, sequence number or tag" },
    { NULL },
};

static const struct param point_tag_arguments[] = {
    { "VM", 0, PARAM_VM, .required = true, .completer = COMPLETE_VM,
      .help = "the VM's name or UUID, or the replication's id" },
    { "POINT", 0, PARAM_STRING, .required = true,
      .help = "the recovery point's id, sequence number or tag" },
    { "TAG", 0, PARAM_STRING, .required = true,
      .help = "letters, digits, '.', '_' and '-', a letter first" },
    { NULL },
};

static const struct param vm_tag_arguments[] = {
    { "VM", 0, PARAM_VM, .required = true, .completer = COMPLETE_VM,
      .help = "the VM's name or UUID, or the replication's id" },
    { "TAG", 0, PARAM_STRING, .required = true, .help = "the tag to take away" },
    { NULL },
};

static const struct param points_options[] = {
    { "limit", 'n', PARAM_INT, .value = "N",
      .help = "of the window's points only the newest N" },
    { "plan", 0, PARAM_FLAG, .help = "show what each rule keeps" },
    RETENTION_OPTIONS,
    { NULL },
};

static const struct param pin_options[] = {
    { "tag", 0, PARAM_STRING, .value = "TAG", .help = "give it this tag as well" },
    { NULL },
};

static const struct param retention_options[] = { RETENTION_OPTIONS, { NULL } };

static const struct param consistency_options[] = {
    { "every", 0, PARAM_STRING, .value = "WHEN",
      .help = "one of so many cycles ('10'), one in each time ('5m'), or 'never'" },
    { NULL },
};

static const struct param bandwidth_options[] = {
    { "limit", 0, PARAM_STRING, .value = "LIMIT",
      .help = "'20MiB/s', '08:00-18:00 5MiB/s, else 50MiB/s', 'cycles', 'unlimited'" },
    { NULL },
};

static const struct param vm_choice[] = {
    { "VM", 0, PARAM_VM, .completer = COMPLETE_VM,
      .help = "only those of this VM: its name or UUID, or the replication's id" },
    { NULL },
};

static const struct param export_argument[] = {
    { "EXPORT", 0, PARAM_STRING, .required = true, .help = "the export's name" },
    { NULL },
};

static const struct param export_options[] = {
    POINT_OPTIONS,
    { "listen", 0, PARAM_STRING, .value = "HOST:PORT",
      .help = "serve by TLS at this address, instead of on a unix socket" },
    { "credentials", 0, PARAM_STRING, .value = "DIR", .completer = COMPLETE_FILE,
      .help = "with --listen and --wait: put the client's certificate and key there" },
    { "name", 0, PARAM_STRING, .value = "NAME",
      .help = "the export's name: a-z, 0-9 and '-' (made from the VM's if not given)" },
    WAIT,
    { NULL },
};

static const struct param clone_options[] = {
    { "name", 0, PARAM_STRING, .required = true, .value = "NAME",
      .help = "the name of the new VM" },
    POINT_OPTIONS,
    { "storage", 0, PARAM_STRING, .value = "NAME",
      .help = "the storage that takes its disks (the replica's if not given)" },
    WAIT,
    { NULL },
};

static const struct param test_failover_options[] = {
    POINT_OPTIONS,
    { "network", 0, PARAM_STRING, .value = "NAME",
      .help = "in this network of the host, not in an isolated one made for the test" },
    { "name", 0, PARAM_STRING, .value = "NAME",
      .help = "the domain's name (VM-test-XXXX if not given)" },
    { "memory", 0, PARAM_SIZE, .value = "SIZE", .help = "no more memory than this" },
    { "keep", 0, PARAM_DURATION, .value = "DURATION",
      .help = "let it run for so long once it was checked" },
    { "clean-up", 0, PARAM_FLAG, .help = "end it as soon as it was checked" },
    { "check", 0, PARAM_STRING, .repeated = true, .value = "CHECK",
      .help =
          "running[:TIME], agent, tcp:PORT or script:PATH; may be given more than once" },
    { "timeout", 0, PARAM_DURATION, .value = "DURATION",
      .help = "for all checks together" },
    { "note", 0, PARAM_STRING, .value = "TEXT", .help = "kept with the result" },
    WAIT,
    { NULL },
};

static const struct param test_argument[] = {
    { "TEST", 0, PARAM_STRING, .required = true, .completer = COMPLETE_VM,
      .help = "the test's id, its domain's name, or a VM" },
    { NULL },
};

static const struct param test_report_options[] = {
    { "screenshot", 0, PARAM_STRING, .value = "FILE", .completer = COMPLETE_FILE,
      .help = "write what the guest showed to this file" },
    { NULL },
};

static const struct param test_cleanup_options[] = {
    { "pass", 0, PARAM_FLAG, .help = "it has passed, whatever the checks say" },
    { "fail", 0, PARAM_FLAG, .help = "it has failed, whatever the checks say" },
    { "note", 0, PARAM_STRING, .value = "TEXT", .help = "kept with the result" },
    WAIT,
    { NULL },
};

static const struct param release_options[] = {
    { "hold", 0, PARAM_DURATION, .value = "DURATION",
      .help =
          "how long nothing is captured, unless it is reverted sooner (default 10m)" },
    { NULL },
};

static const struct param wait_option[] = { WAIT, { NULL } };

static const struct param resolve_options[] = {
    { "keep", 0, PARAM_STRING, .value = "HOST",
      .help = "the host that keeps the VM; the other one's is stopped, its data kept" },
    WAIT,
    { NULL },
};

static const struct param guard_arguments[] = {
    { "ACTION", 0, PARAM_STRING, .required = true,
      .help = "status: what libvirt's hook answers; override: a word against it" },
    { "DOMAIN", 0, PARAM_DOMAIN, .completer = COMPLETE_DOMAIN,
      .help = "the VM, by name or UUID; for status all if not given" },
    { NULL },
};

static const struct param guard_options[] = {
    { "allow", 0, PARAM_FLAG, .help = "the VM may start here, whatever the guard knows" },
    { "deny", 0, PARAM_FLAG, .help = "it may not" },
    { "end", 0, PARAM_FLAG, .help = "the guard decides again" },
    { "reason", 0, PARAM_STRING, .value = "TEXT", .help = "why; it is kept and shown" },
    { "for", 0, PARAM_DURATION, .value = "TIME",
      .help = "for how long (until --end if not given)" },
    { NULL },
};

static const struct param task_list_options[] = {
    { "limit", 'n', PARAM_INT, .value = "N", .help = "only the newest N tasks" },
    { NULL },
};

static const struct param events_options[] = {
    { "follow", 'f', PARAM_FLAG,
      .help = "print what happens from now on, until interrupted" },
    { NULL },
};

#define PEERS   "Peers"
#define VMS     "Virtual machines"
#define POINTS  "Recovery points"
#define TESTS   "Test failovers"
#define TASKS   "Tasks"
#define GENERAL "General"

/* clang-format off */
static const struct command commands[] = {
    {"peer-invite", PEERS, "Make a one-time token that another host pairs with.",
     NULL, invite_options, handle_peer_invite},
    {"peer-join", PEERS, "Pair this host with the one that made the token.",
     token_argument, NULL, handle_peer_join},
    {"peer-list", PEERS, "List the hosts that this one is paired with.",
     NULL, NULL, handle_peer_list},
    {"peer-remove", PEERS, "Forget a peer that no replication uses.",
     peer_argument, NULL, handle_peer_remove},

    {"protect", VMS, "Replicate a VM to a peer.",
     domain_argument, protect_options, handle_protect},
    {"export-seed", VMS, "Write a VM's disks to a folder, for its first sync elsewhere.",
     export_seed_arguments, export_seed_options, handle_export_seed},
    {"unprotect", VMS, "End a replication and remove what it left on both hosts.",
     vm_argument, unprotect_options, handle_unprotect},
    {"list", VMS, "List the replications that this host is source or target of.",
     NULL, NULL, handle_list},
    {"info", VMS, "Show everything about one replication.",
     vm_argument, NULL, handle_info},
    {"points", VMS, "List the recovery points of a VM.",
     vm_argument, points_options, handle_points},
    {"pin", VMS, "Keep a recovery point until it is unpinned.",
     point_argument, pin_options, handle_pin},
    {"unpin", VMS, "Let the rules decide about a recovery point again.",
     point_argument, NULL, handle_unpin},
    {"tag", VMS, "Name a recovery point; one with a tag is kept.",
     point_tag_arguments, NULL, handle_tag},
    {"untag", VMS, "Take a tag away from the recovery point that has it.",
     vm_tag_arguments, NULL, handle_untag},
    {"retention", VMS, "Show or change which recovery points of a VM stay.",
     vm_argument, retention_options, handle_retention},
    {"consistency", VMS, "Show or change which points are application-consistent.",
     vm_argument, consistency_options, handle_consistency},
    {"bandwidth", VMS, "Show or change how much a VM's replication may send.",
     vm_argument, bandwidth_options, handle_bandwidth},
    {"sync", VMS, "Make a recovery point now.",
     vm_argument, wait_option, handle_sync},
    {"resync", VMS, "Compare the disks with the replica now; what differs is sent.",
     vm_argument, wait_option, handle_resync},
    {"release-bitmaps", VMS, "Let the VM be reverted to an internal snapshot.",
     vm_argument, release_options, handle_release_bitmaps},
    {"verify", VMS, "Prove that the replica is the same as the VM's disks.",
     vm_argument, wait_option, handle_verify},
    {"scrub", VMS, "Check the replica against its checksums.",
     vm_argument, wait_option, handle_scrub},
    {"pause", VMS, "Stop shipping changes until resumed.",
     vm_argument, NULL, handle_pause},
    {"resume", VMS, "Go on shipping changes.",
     vm_argument, NULL, handle_resume},
    {"failover", VMS, "Start the VM here, from its newest recovery point or another one.",
     vm_argument, failover_options, handle_failover},
    {"planned-failover", VMS, "Move the VM here from its source, losing nothing.",
     vm_argument, planned_options, handle_planned_failover},
    {"failover-policy", VMS, "How a failover ends by itself.",
     vm_argument, policy_options, handle_failover_policy},
    {"abandon", VMS, "Take a VM back at its source that was prepared for a failover.",
     vm_argument, abandon_options, handle_abandon},
    {"undo", VMS, "Throw a failover away: the VM is the source's again.",
     vm_argument, wait_option, handle_undo},
    {"commit", VMS, "Make a failover final: no undo any more, its recovery points go.",
     vm_argument, commit_options, handle_commit},
    {"reverse", VMS, "Replicate a VM that was failed over, from here to where it came from.",
     vm_argument, reverse_options, handle_reverse},
    {"failback", VMS, "Bring a VM home, losing nothing, on the host that it was protected on.",
     vm_argument, failback_options, handle_failback},
    {"undo-failback", VMS, "Throw a failback away: the VM runs on the other host again.",
     vm_argument, wait_option, handle_undo_failback},

    {"resolve", VMS, "Show a split brain, or end it: one host keeps the VM.",
     vm_argument, resolve_options, handle_resolve},
    {"guard", VMS, "Show or override which VMs may start on this host.",
     guard_arguments, guard_options, handle_guard},

    {"export", POINTS, "Serve a recovery point's disks, read-only, by NBD.",
     vm_argument, export_options, handle_export},
    {"export-list", POINTS, "List the exports.",
     vm_choice, NULL, handle_export_list},
    {"unexport", POINTS, "End an export.",
     export_argument, NULL, handle_unexport},
    {"clone", POINTS, "Make a VM of its own from a recovery point; it is not started.",
     vm_argument, clone_options, handle_clone},

    {"test-failover", TESTS, "Run a recovery point of a VM here, apart from everything.",
     vm_argument, test_failover_options, handle_test_failover},
    {"test-list", TESTS, "List test failovers and their results, the newest first.",
     vm_choice, NULL, handle_test_list},
    {"test-report", TESTS, "Show what a test failover has shown.",
     test_argument, test_report_options, handle_test_report},
    {"test-cleanup", TESTS, "End a test failover, or all of a VM; the result stays.",
     test_argument, test_cleanup_options, handle_test_cleanup},

    {"task-list", TASKS, "List tasks, the newest first.",
     NULL, task_list_options, handle_task_list},
    {"task-info", TASKS, "Show one task with its steps.",
     task_argument, NULL, handle_task_info},
    {"task-wait", TASKS, "Wait for a task and exit with its result.",
     task_argument, NULL, handle_task_wait},
    {"task-cancel", TASKS, "Ask a running task to stop; what it did is undone.",
     task_argument, NULL, handle_task_cancel},

    {"events", GENERAL, "Print the events that virtdrd has kept.",
     NULL, events_options, handle_events},
    {"host-info", GENERAL, "Show this host: versions, storages, certificate.",
     NULL, NULL, handle_host_info},
    {"help", GENERAL, "Show the commands, or one command's options.",
     command_argument, NULL, handle_help},
    {"version", GENERAL, "Show the version of virt-dr.",
     NULL, NULL, handle_version},
    {NULL},
};
/* clang-format on */

const struct command *
command_table(void)
{
    return commands;
}

const struct command *
command_find(const char *name)
{
    for (const struct command *c = commands; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

const struct param *
command_global_options(void)
{
    return global_options;
}
