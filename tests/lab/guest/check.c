/* lab-check: says which blocks of a run a set of raw disks holds.
 *
 *     lab-check [--json] [--acked NUMBER [--acked-time NS] [--acked-run ID]] DISK...
 *
 * Exit status: 0 consistent, 1 damaged, 2 could not be told, 3 no run on these disks.
 * Only reads. */

#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    EXIT_DAMAGED = 1,
    EXIT_TROUBLE = 2,
    EXIT_NO_RUN = 3
};

struct options {
    bool json;
    bool acked_given;
    uint64_t acked;
    uint64_t acked_time_ns; /* 0: not known */
    const char *acked_run;  /* NULL: not known */
};

static bool
parse_number(const char *text, uint64_t *ret)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *ret = value;
    return true;
}

static bool
parse_options(int argc, char **argv, struct options *ret)
{
    static const struct option known[] = {
        { "json", no_argument, NULL, 'j' },
        { "acked", required_argument, NULL, 'a' },
        { "acked-time", required_argument, NULL, 't' },
        { "acked-run", required_argument, NULL, 'r' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        bool good = true;

        if (c == 'j')
            ret->json = true;
        else if (c == 'a')
            good = ret->acked_given = parse_number(optarg, &ret->acked);
        else if (c == 't')
            good = parse_number(optarg, &ret->acked_time_ns);
        else if (c == 'r')
            ret->acked_run = optarg;
        else
            return false;
        if (!good) {
            fprintf(stderr, "lab-check: '%s' is not a number\n", optarg);
            return false;
        }
    }
    return optind < argc && argc - optind <= BLOCK_DISKS_MAX;
}

static bool
open_disks(char **names, uint32_t n_disks, struct scan_disk *disks)
{
    for (uint32_t d = 0; d < n_disks; d++) {
        disks[d].name = names[d];
        disks[d].fd = open(names[d], O_RDONLY | O_CLOEXEC);
        if (disks[d].fd < 0) {
            fprintf(stderr, "lab-check: open '%s': %s\n", names[d], strerror(errno));
            return false;
        }
    }
    return true;
}

static uint64_t
lost_blocks(const struct options *opt, const struct scan_result *r)
{
    return opt->acked > r->highest ? opt->acked - r->highest : 0;
}

static double
lost_seconds(const struct options *opt, const struct scan_result *r)
{
    uint64_t from = r->highest > 0 ? r->newest_time_ns : r->run.started;

    if (lost_blocks(opt, r) == 0 || opt->acked_time_ns <= from)
        return 0;
    return (double)(opt->acked_time_ns - from) / 1e9;
}

static void
print_json(const struct options *opt, const struct scan_result *r)
{
    printf("{\"run\": \"%016" PRIx64 "\", \"consistent\": %s, \"highest\": %" PRIu64
           ", \"held\": %" PRIu64 ", \"missing\": %" PRIu64
           ", \"first_missing\": %" PRIu64 ", \"torn\": %" PRIu64 ", \"order\": %" PRIu64
           ", \"misplaced\": %" PRIu64 ", \"foreign\": %" PRIu64
           ", \"newest_time_ns\": %" PRIu64 ", \"slots\": %" PRIu64,
           r->run.id, scan_is_consistent(r) ? "true" : "false", r->highest, r->held,
           r->missing, r->first_missing, r->torn, r->order, r->misplaced, r->foreign,
           r->newest_time_ns, r->run.slots);
    for (uint32_t d = 0; d < r->run.disks; d++)
        printf("%s%" PRIu64, d == 0 ? ", \"disk_highest\": [" : ", ", r->disk_highest[d]);
    printf("]");
    if (opt->acked_given)
        printf(", \"acked\": %" PRIu64 ", \"lost_blocks\": %" PRIu64, opt->acked,
               lost_blocks(opt, r));
    if (opt->acked_given && opt->acked_time_ns != 0)
        printf(", \"lost_seconds\": %.3f", lost_seconds(opt, r));
    printf("}\n");
}

static void
print_text(const struct options *opt, const struct scan_result *r)
{
    printf("run            %016" PRIx64 " over %u disks, %" PRIu64 " slots each\n",
           r->run.id, r->run.disks, r->run.slots);
    printf("highest        %" PRIu64 ", written at %.3f\n", r->highest,
           (double)r->newest_time_ns / 1e9);
    for (uint32_t d = 0; d < r->run.disks; d++)
        printf("on disk %-2u     highest %" PRIu64 "\n", d, r->disk_highest[d]);
    printf("held           %" PRIu64 "\n", r->held);
    printf("missing        %" PRIu64, r->missing);
    if (r->first_missing != 0)
        printf(", the first is %" PRIu64, r->first_missing);
    printf("\norder broken   %" PRIu64 "\ntorn           %" PRIu64
           "\nmisplaced      %" PRIu64 "\n",
           r->order, r->torn, r->misplaced);
    if (opt->acked_given)
        printf("lost           %" PRIu64 " of the blocks acknowledged up to %" PRIu64
               "\n",
               lost_blocks(opt, r), opt->acked);
    if (opt->acked_given && opt->acked_time_ns != 0)
        printf("lost           %.3f seconds\n", lost_seconds(opt, r));
    printf("verdict        %s\n", scan_is_consistent(r) ? "consistent" : "DAMAGED");
}

static bool
same_run(const struct options *opt, const struct scan_result *r)
{
    char run[17];

    snprintf(run, sizeof(run), "%016" PRIx64, r->run.id);
    if (opt->acked_run == NULL || strcmp(opt->acked_run, run) == 0)
        return true;
    fprintf(stderr,
            "lab-check: the disks hold run %s, the acknowledged blocks are of run %s\n",
            run, opt->acked_run);
    return false;
}

int
main(int argc, char **argv)
{
    struct options opt = { 0 };
    struct scan_disk disks[BLOCK_DISKS_MAX];
    struct scan_result result;
    char message[512];

    if (!parse_options(argc, argv, &opt)) {
        fprintf(stderr, "usage: lab-check [--json] [--acked N] [--acked-time NS] "
                        "[--acked-run ID] DISK...\n");
        return EXIT_TROUBLE;
    }
    if (!open_disks(argv + optind, (uint32_t)(argc - optind), disks))
        return EXIT_TROUBLE;
    switch (
        scan_disks(disks, (uint32_t)(argc - optind), &result, message, sizeof(message))) {
    case SCAN_FAILED:
        fprintf(stderr, "lab-check: %s\n", message);
        return EXIT_TROUBLE;
    case SCAN_NO_RUN:
        fprintf(stderr, "lab-check: no run on these disks\n");
        return EXIT_NO_RUN;
    case SCAN_OK:
        break;
    }
    if (!same_run(&opt, &result))
        return EXIT_TROUBLE;
    (opt.json ? print_json : print_text)(&opt, &result);
    return scan_is_consistent(&result) ? EXIT_SUCCESS : EXIT_DAMAGED;
}
