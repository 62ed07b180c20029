#include <signal.h>

#include "client/report.h"
#include "client/session.h"

int
main(int argc, char **argv)
{
    AUTOPTR(invocation) *inv = NULL;
    AUTOPTR(session) *session = NULL;
    AUTOPTR(error) *err = NULL;

    /* A connection that breaks is an error with a message. */
    signal(SIGPIPE, SIG_IGN);
    if (!invocation_parse(argc, argv, &inv, &err))
        return report_usage(argc, argv, err);
    session = session_new(inv);
    if (!invocation_command(inv)->run(session, inv, &err) || !session_finish(&err))
        return report_error(invocation_command(inv), session->settings.address, err);
    return 0;
}
