/*
 * virtdrd: options, signals, systemd, and the loop. What it does is in daemon.c.
 */
#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "common/units.h"
#include "daemon/config.h"
#include "daemon/daemon.h"

#define DEFAULT_CONFIG VDR_SYSCONFDIR "/virt-dr/virtdrd.conf"

struct options {
    const char *config;
    bool check_only;
};

struct service {
    struct event_base *base;
    struct daemon *daemon;
    struct config **configs; /* the newest last; older ones may be in use still */
    size_t n_configs;
    struct event *signals[3];
    struct event *watchdog;
};

static void
usage(FILE *f)
{
    fputs("Usage: virtdrd [--config FILE] [--check-config] [--version] [--help]\n"
          "Replicates virtual machines to other hosts and starts them there.\n"
          "\n"
          "  -f, --config FILE   instead of " DEFAULT_CONFIG "\n"
          "  -C, --check-config  reads the configuration, says what is wrong, exits\n"
          "  -V, --version       prints the version\n"
          "  -h, --help          prints this\n"
          "\n"
          "It is run by systemd (virtdrd.service) and driven with virt-dr(1).\n",
          f);
}

/* True: go on; else exit with *ret_status. */
static bool
parse_options(int argc, char **argv, struct options *ret, int *ret_status)
{
    static const struct option longs[] = { { "config", required_argument, NULL, 'f' },
                                           { "check-config", no_argument, NULL, 'C' },
                                           { "version", no_argument, NULL, 'V' },
                                           { "help", no_argument, NULL, 'h' },
                                           { 0 } };
    int c;

    *ret_status = EXIT_SUCCESS;
    while ((c = getopt_long(argc, argv, "f:CVh", longs, NULL)) != -1) {
        if (c == 'f') {
            ret->config = optarg;
        } else if (c == 'C') {
            ret->check_only = true;
        } else if (c == 'V') {
            puts("virtdrd " PACKAGE_VERSION);
            return false;
        } else if (c == 'h') {
            usage(stdout);
            return false;
        } else {
            *ret_status = error_code_exit(ERROR_USAGE);
            return false;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "virtdrd: unexpected argument '%s'; see virtdrd --help\n",
                argv[optind]);
        *ret_status = error_code_exit(ERROR_USAGE);
        return false;
    }
    return true;
}

/* --- configuration -------------------------------------------------------------------
 */

static void
keep_config(struct service *s, struct config *config)
{
    s->configs = mem_realloc(s->configs, s->n_configs + 1, sizeof *s->configs);
    s->configs[s->n_configs++] = config;
}

static bool
same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* What only a restart can change. */
static bool
needs_restart(const struct config *a, const struct config *b)
{
    return !same(a->state_folder, b->state_folder) ||
           !same(a->run_folder, b->run_folder) || !same(a->listen_unix, b->listen_unix) ||
           !same(a->listen_tls, b->listen_tls) ||
           !same(a->listen_stream, b->listen_stream) ||
           !same(a->libvirt_uri, b->libvirt_uri) ||
           !same(a->certificate, b->certificate) || !same(a->key, b->key) ||
           !same(a->ca, b->ca) || a->cycle_workers != b->cycle_workers ||
           a->receive_workers != b->receive_workers || a->task_workers != b->task_workers;
}

static void
reload(struct service *s)
{
    const struct config *now = s->configs[s->n_configs - 1];
    struct config *config;
    struct error *e = NULL;

    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
               (long long)units_monotonic_ms() * 1000);
    if (!config_load(now->file, &config, &e)) {
        log_failure(NULL, "reload-failed", e);
        error_free(e);
    } else {
        if (needs_restart(now, config))
            log_warn(NULL, "reload-restart",
                     "[listen], [tls], [libvirt], [workers], state and run take effect "
                     "after a restart");
        keep_config(s, config);
        s->daemon->config = config;
        log_set_level(config->log_level);
        log_info(NULL, "reloaded", "configuration '%s' was read again", config->file);
    }
    sd_notify(0, "READY=1");
}

/* --- the loop --------------------------------------------------------------------------
 */

static void
on_stop(evutil_socket_t number, short what UNUSED, void *opaque)
{
    struct service *s = opaque;

    log_info(NULL, "stopping", "signal %d", (int)number);
    sd_notify(0, "STOPPING=1");
    event_base_loopbreak(s->base);
}

static void
on_reload(evutil_socket_t number UNUSED, short what UNUSED, void *opaque)
{
    reload(opaque);
}

static void
on_watchdog(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque UNUSED)
{
    sd_notify(0, "WATCHDOG=1");
}

static void
add_events(struct service *s)
{
    uint64_t usec = 0;

    s->signals[0] = evsignal_new(s->base, SIGTERM, on_stop, s);
    s->signals[1] = evsignal_new(s->base, SIGINT, on_stop, s);
    s->signals[2] = evsignal_new(s->base, SIGHUP, on_reload, s);
    for (size_t i = 0; i < N_ELEMENTS(s->signals); i++)
        event_add(s->signals[i], NULL);
    if (sd_watchdog_enabled(0, &usec) > 0) {
        struct timeval half = { .tv_sec = (time_t)(usec / 2 / 1000000),
                                .tv_usec = (suseconds_t)(usec / 2 % 1000000) };

        s->watchdog = event_new(s->base, -1, EV_PERSIST, on_watchdog, s);
        event_add(s->watchdog, &half);
    }
}

static bool
serve(struct service *s, struct error **err)
{
    struct config *config = s->configs[0];

    evthread_use_pthreads();
    signal(SIGPIPE, SIG_IGN);
    s->base = event_base_new();
    if (s->base == NULL)
        return error_set(err, ERROR_INTERNAL, "no event loop could be made");
    if (!daemon_open(config, s->base, &s->daemon, err) ||
        !guard_is_effective(&s->daemon->guard, err))
        return false;
    add_events(s);
    log_info(NULL, "started", "virtdrd " PACKAGE_VERSION " on host '%s', site '%s'",
             config->host_name, config->site);
    sd_notify(0, "READY=1");
    event_base_dispatch(s->base);
    return true;
}

static void
take_apart(struct service *s)
{
    daemon_free(s->daemon);
    for (size_t i = 0; i < N_ELEMENTS(s->signals); i++)
        if (s->signals[i] != NULL)
            event_free(s->signals[i]);
    if (s->watchdog != NULL)
        event_free(s->watchdog);
    if (s->base != NULL) {
        /* What libevent has deferred holds TLS connections: dropped, it would never free
         * them. */
        event_base_loop(s->base, EVLOOP_NONBLOCK);
        event_base_free(s->base);
    }
    for (size_t i = 0; i < s->n_configs; i++)
        config_free(s->configs[i]);
    free(s->configs);
}

int
main(int argc, char **argv)
{
    struct options options = { .config = DEFAULT_CONFIG };
    struct service s = { 0 };
    struct config *config = NULL;
    AUTOPTR(error) *e = NULL;
    int status;

    if (!parse_options(argc, argv, &options, &status))
        return status;
    log_init(LOG_LEVEL_INFO);
    if (config_load(options.config, &config, &e)) {
        keep_config(&s, config);
        log_set_level(config->log_level);
    }
    if (options.check_only && e == NULL)
        printf("%s: ok\n", options.config);
    else if (e == NULL)
        serve(&s, &e);
    take_apart(&s);
    if (e == NULL)
        return EXIT_SUCCESS;
    fprintf(stderr, "virtdrd: %s\n", error_message(e));
    return error_code_exit(error_code(e));
}
