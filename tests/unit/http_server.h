/*
 * A small HTTP server in a thread, with identities for both sides of TLS.
 *
 * It gives the same answer to every request, on the loopback or on a unix
 * socket. TLS clients must show a certificate.
 */
#ifndef TESTS_UNIT_HTTP_SERVER_H
#define TESTS_UNIT_HTTP_SERVER_H

#include "tests/unit/unit.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

struct identity {
    char certificate[64], key[64]; /* PEM files */
    char fingerprint[65];
};

/* Of the whole program: keys take time to make. */
extern struct identity server_id, client_id, other_id;

int make_identities(void **state);
int remove_identities(void **state);

struct server {
    const char *answer;
    size_t n_answer;
    bool silent;  /* reads and says nothing */
    bool hold;    /* keeps the connection open behind the answer */
    SSL_CTX *tls; /* of server_tls(); NULL: plain */
    int listener;
    char address[128];
    pthread_t thread;
    atomic_int connections, requests;
    char request[4096]; /* the last one; read it after server_stop() */
};

/* Only this version of TLS; takes any client's certificate, or none at all. */
SSL_CTX *server_tls(int version, bool takes_clients);

void server_start(struct server *s, const char *answer);
void server_start_unix(struct server *s, const char *answer);

/* run(s) in place of the loop that accepts and answers. */
void server_start_with(struct server *s, const char *answer, void *(*run)(void *));

/* The client must be gone: its end of the connection ends the server's. */
void server_stop(struct server *s);

#endif
