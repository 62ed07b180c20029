/* Each command: what it asks virtdrd, what it prints, how it exits. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <unistd.h>

#include "common/json.h"
#include "tests/unit/client_server.h"

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

#define API "/api/v1"

static const char peer_json[] =
    "{\"id\":\"p1\",\"name\":\"b\",\"site\":\"south\",\"address\":\"https://b:4343\","
    "\"streamAddress\":\"b:4343\",\"fingerprint\":\"ab\",\"state\":\"away\","
    "\"lastContact\":1772361720123,\"clockSkew\":-3,"
    "\"error\":{\"code\":\"Timeout\",\"message\":\"no answer \\u001b[2J\"}}";

static const char replication_json[] =
    "{\"id\":\"r1\",\"vmId\":\"11111111-2222-3333-4444-555555555555\","
    "\"vmName\":\"web01\",\"side\":\"source\",\"peer\":{\"id\":\"p1\",\"name\":\"b\"},"
    "\"source\":{\"host\":\"a\",\"site\":\"north\"},"
    "\"destination\":{\"host\":\"b\",\"site\":\"south\"},"
    "\"state\":\"replicating\",\"epoch\":1,\"isPaused\":false,\"isReversed\":false,"
    "\"overallHealth\":\"yellow\",\"healthReasons\":[\"RPO was violated\",\"second\"],"
    "\"currentRpoViolation\":2,\"rpoAge\":7200,"
    "\"settings\":{\"rpo\":5000,\"storage\":\"default\",\"excludedDisks\":[\"vdb\"],"
    "\"dataConnectionType\":\"ENCRYPTED_COMPRESSED\"},"
    "\"capture\":{\"driver\":\"checkpoint\",\"reason\":\"all disks are qcow2\"},"
    "\"disks\":[{\"target\":\"vda\",\"capacity\":21474836480,\"format\":\"qcow2\","
    "\"path\":\"/img/a.qcow2\",\"excluded\":false,\"capture\":\"checkpoint\"},"
    "{\"target\":\"vdb\",\"capacity\":1024,\"format\":\"raw\",\"path\":\"/img/b\","
    "\"excluded\":true,\"reason\":\"excluded by the operator\"}],"
    "\"sourceState\":{\"state\":\"delta\",\"progress\":{\"bytesToTransfer\":2048,"
    "\"bytesTransferred\":1024,\"rate\":512,\"remaining\":2000}},"
    "\"latestInstance\":{\"key\":\"k9\",\"timestamp\":1772361720123,"
    "\"sequenceNumber\":9,\"transferBytes\":4096,\"transferSeconds\":0.25},"
    "\"statistics\":{\"cycles\":120,\"failures\":2,\"cycleMsP50\":130,\"cycleMsP99\":230,"
    "\"changedBytes\":1048576,\"wireBytes\":524288,\"firstSyncBytes\":2147483648,"
    "\"firstSyncMs\":4200,\"rpoSeenMax\":9000},"
    "\"lastError\":{\"code\":\"Timeout\",\"message\":\"peer b did not answer\"},"
    "\"lastErrorTime\":1772361710000,\"nextTry\":null,"
    "\"created\":1772361000000,\"lastUpdated\":1772361720500}";

static const char running_json[] =
    "{\"id\":\"t1\",\"type\":\"sync\",\"state\":\"RUNNING\",\"progress\":40,"
    "\"step\":\"ship\",\"steps\":[{\"name\":\"capture\",\"state\":\"done\"},"
    "{\"name\":\"ship\",\"state\":\"running\"}],\"transfer\":null,"
    "\"startTime\":1772361720000,\"endTime\":-1,\"user\":\"root\",\"site\":\"north\","
    "\"error\":null,\"warnings\":[\"careful\"],\"result\":null,"
    "\"workflowInfo\":{\"type\":\"sync\",\"resourceId\":\"r1\","
    "\"resourceName\":\"web01\",\"resourceType\":\"replication\"}}";

static const char failed_json[] =
    "{\"id\":\"t2\",\"type\":\"failover\",\"state\":\"FAILED\",\"progress\":20,"
    "\"step\":\"stop-source\",\"steps\":[],\"startTime\":1772361720000,"
    "\"endTime\":1772361721500,\"error\":{\"code\":\"SourceReachable\","
    "\"message\":\"the source still runs it\"},\"warnings\":[],"
    "\"workflowInfo\":{\"resourceName\":\"web01\"}}";

static const char host_json[] =
    "{\"id\":\"h1\",\"name\":\"a\",\"site\":\"north\",\"version\":\"0.1.0\","
    "\"protocolVersion\":1,\"time\":1772361720123,\"fingerprint\":\"abcd\","
    "\"hypervisor\":{\"libvirt\":\"9.0.0\",\"checkpoints\":true},"
    "\"storages\":[{\"name\":\"default\",\"path\":\"/var/lib/virt-dr/replicas\","
    "\"freeBytes\":1073741824,\"usedBytes\":0}],"
    "\"scratch\":{\"path\":\"/var/lib/libvirt/scratch\",\"limitBytes\":1073741824},"
    "\"certificateDaysLeft\":3650}";

static int
set_up(void **state)
{
    *state = client_server_new();
    return 0;
}

static int
tear_down(void **state)
{
    client_server_free(*state);
    return 0;
}

/* Runs words against the one answer; checks the request and the exit status. */
static struct client_run
run(struct client_server *cs, const char *const *words, const char *asked,
    int exit_status)
{
    struct client_run r = { 0 };

    client_server_run(cs, words, &r);
    if (r.exit_status != exit_status)
        fail_msg("exit %d: %s%s", r.exit_status, r.out, r.err);
    assert_non_null(client_server_asked(cs, 0));
    assert_string_equal(client_server_asked(cs, 0), asked);
    assert_null(client_server_asked(cs, 1));
    return r;
}

/* Each word is somewhere in the output. */
static void
assert_has(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strstr(text, *words) == NULL)
            fail_msg("'%s' is not in: %s", *words, text);
}

/* The output is JSON with the same content as the answer. */
static void
assert_same_json(const char *text, const char *answer)
{
    AUTOJSON *got = json_tokener_parse(text);
    AUTOJSON *wanted = json_tokener_parse(answer);

    assert_non_null(wanted);
    assert_true(json_object_equal(got, wanted));
}

/* --- lists and pages -------------------------------------------------------- */

struct page {
    const char *words[6];
    const char *question;
    const char *body;
    const char *shown[24];
};

static const struct page pages[] = {
    { { "list" },
      "GET " API "/replications",
      NULL,
      { "NAME   SIDE    PEER  STATE        HEALTH  READY  RPO        "
        "LAST POINT                NOTE\n",
        "web01  source  b     replicating  yellow  -      7.2s / 5s  "
        "2026-03-01T10:42:00.123Z  "
        "RPO was violated\n" } },
    { { "peer-list" },
      "GET " API "/peers",
      NULL,
      { "NAME", "b     south  https://b:4343  away   2026-03-01T10:42:00.123Z  -3 ms  "
                "no answer ?[2J\n" } },
    { { "points", "web01" },
      "GET " API "/replications/web01/points",
      "{\"items\":[{\"id\":\"k8\",\"sequenceNumber\":8,\"timestamp\":1772361718000,"
      "\"transferBytes\":512,\"consistency\":\"application\",\"isPinned\":true,"
      "\"tags\":[\"a\",\"b\"],\"state\":\"damaged\",\"keptBy\":\"pinned\","
      "\"expires\":null},"
      "{\"id\":\"k9\",\"sequenceNumber\":9,\"timestamp\":1772361720123,"
      "\"receivedTime\":1772361720300,\"transferBytes\":4096,\"consistency\":\"crash\","
      "\"isPinned\":false,\"tags\":[],\"state\":\"ok\",\"keptBy\":null}]}",
      { "POINT  TIME                     NUMBER  SIZE     KIND   KEPT BY  EXPIRES  TAGS  "
        "STATE\n"
        "k9     2026-03-01 10:42:00.123  9       4.0 KiB  crash  (goes)   -              "
        "ok\n"
        "k8     2026-03-01 10:41:58.000  8       512 B    app    pinned   -        a, b  "
        "damaged\n" } },
    { { "retention", "web01" },
      "GET " API "/replications/web01/retention",
      "{\"window\":14400000,\"maxBytes\":0,\"rules\":[{\"name\":\"hourly\","
      "\"distance\":3600000,\"numberOfInstances\":24},{\"name\":\"15m\","
      "\"distance\":900000,\"numberOfInstances\":8}]}",
      { "Window:           4h\n", "Max size:         no limit\n",
        "Rules:            hourly:24 15m:8\n" } },
    { { "bandwidth", "web01" },
      "GET " API "/replications/web01/bandwidth",
      "{\"limit\":null,\"peerLimit\":\"cycles 5MiB/s\",\"rate\":5242880,"
      "\"cyclesOnly\":true}",
      { "Limit:            unlimited\n", "Of the peer:      cycles 5MiB/s\n",
        "Now:              5.0 MiB/s, cycles alone\n" } },
    { { "info", "web01" },
      "GET " API "/replications/web01",
      replication_json,
      { "VM:               web01\n", "Source:           a (site north)\n",
        "Health:           yellow\n", "Reason:           second\n",
        "RPO set:          5s\n", "Age now:          7.2s\n", "Over the RPO:     2s\n",
        "Newest:           2026-03-01T10:42:00.123Z\n", "4.0 KiB in 0.2 s\n",
        "Progress:         50.0% (1.0 KiB of 2.0 KiB, 512 B/s)\n",
        "Why this one:     all disks are qcow2\n", "Cycles:           120, 2 failed\n",
        "2.0 GiB in 4.2s",
        "vda   20.0 GiB  qcow2   yes         checkpoint  /img/a.qcow2\n",
        "vdb   1.0 KiB   raw     no          -           /img/b        excluded by the "
        "operator\n",
        "peer b did not answer (Timeout)", "Next try:         -\n" } },
    { { "task-info", "t1" },
      "GET " API "/tasks/t1",
      running_json,
      { "Id:               t1\n", "State:            RUNNING\n",
        "Progress:         40%\n", "Ended:            -\n", "Warning:          careful\n",
        "capture  done\n" } },
    { { "task-info", "t2" },
      "GET " API "/tasks/t2",
      failed_json,
      { "Error:            the source still runs it (SourceReachable)\n" } },
    { { "host-info" },
      "GET " API "/host",
      host_json,
      { "Name:             a\n", "virtdrd:          0.1.0 (protocol 1)\n",
        "Certificate:      3650 days left\n", "libvirt:          9.0.0\n",
        "default  1.0 GiB  0 B   /var/lib/virt-dr/replicas\n" } },
};

static char *
body_of(const struct page *p)
{
    const char *item = strcmp(p->words[0], "list") == 0 ? replication_json : peer_json;

    return p->body != NULL ? mem_strdup(p->body) : mem_printf("{\"items\":[%s]}", item);
}

static void
every_page_is_shown_to_people_and_to_programs(void **state UNUSED)
{
    for (size_t i = 0; i < N_ELEMENTS(pages); i++) {
        const struct page *p = &pages[i];
        AUTOPTR(client_server) *cs = client_server_new();
        AUTOPTR(client_server) *again = client_server_new();
        AUTOFREE(char) *body = body_of(p);
        struct client_run table, json;

        client_server_answer(cs, p->question, 200, body);
        table = run(cs, p->words, p->question, 0);
        assert_has(table.out, p->shown);
        assert_string_equal(table.err, "");
        client_server_answer(again, p->question, 200, body);
        json = run(again,
                   WORDS("-o", "json", p->words[0], "--",
                         p->words[1] == NULL ? NULL : p->words[1]),
                   p->question, 0);
        assert_same_json(json.out, body);
        client_run_clear(&table);
        client_run_clear(&json);
    }
}

static void
a_list_of_tasks_can_be_limited(void **state)
{
    AUTOFREE(char) *body = mem_printf("{\"items\":[%s,%s]}", running_json, failed_json);
    struct client_run r;

    client_server_answer(*state, "GET " API "/tasks?limit=2", 200, body);
    r = run(*state, WORDS("task-list", "-n", "2"), "GET " API "/tasks?limit=2", 0);
    assert_has(r.out, WORDS("t1    sync      web01  RUNNING  40%", "FAILED",
                            "1.5s  the source still runs it\n"));
    client_run_clear(&r);
}

static void
a_quiet_list_is_names_alone(void **state)
{
    AUTOFREE(char) *body =
        mem_printf("{\"items\":[%s,{\"vmName\":\"db\"}]}", replication_json);
    struct client_run r;

    client_server_answer(*state, "GET " API "/replications", 200, body);
    r = run(*state, WORDS("--quiet", "list"), "GET " API "/replications", 0);
    assert_string_equal(r.out, "web01\ndb\n");
    client_run_clear(&r);
}

static void
an_answer_of_other_shapes_breaks_nothing(void **state)
{
    struct client_run r;

    client_server_answer(*state, "GET " API "/replications", 200,
                         "{\"items\":[null,5,\"x\",{\"vmName\":7,\"healthReasons\":[3],"
                         "\"settings\":[],\"rpoAge\":\"old\",\"latestInstance\":1}]}");
    r = run(*state, WORDS("list"), "GET " API "/replications", 0);
    assert_has(r.out, WORDS("-     -     -     -      -       -      - / -"));
    client_run_clear(&r);
}

static void
an_answer_without_items_is_a_protocol_error(void **state)
{
    struct client_run r;

    client_server_answer(*state, "GET " API "/peers", 200, "{\"items\":{}}");
    r = run(*state, WORDS("peer-list"), "GET " API "/peers",
            error_code_exit(ERROR_PROTOCOL));
    assert_has(r.err, WORDS("virt-dr: error: "));
    client_run_clear(&r);
}

/* --- changes ---------------------------------------------------------------- */

struct change {
    const char *words[16];
    const char *question;
    const char *body;
    int status;
    const char *answer;
    const char *shown;
};

static const char token_json[] =
    "{\"token\":\"vdr1-abc\",\"expires\":1772361720123,\"fingerprint\":\"ff00\"}";

static const struct change changes[] = {
    { { "peer-invite" },
      "POST " API "/invites",
      "{}",
      200,
      token_json,
      "Token:            vdr1-abc\n" },
    { { "peer-invite", "--expires", "15m" },
      "POST " API "/invites",
      "{\"expiresIn\":900000}",
      200,
      token_json,
      "Fingerprint:      ff00\n" },
    { { "-q", "peer-invite" },
      "POST " API "/invites",
      "{}",
      200,
      token_json,
      "vdr1-abc\n" },
    { { "peer-join", "vdr1-abc" },
      "POST " API "/peers",
      "{\"token\":\"vdr1-abc\"}",
      200,
      peer_json,
      "paired with 'b' (site south, https://b:4343)\n" },
    { { "peer-remove", "b/../c" },
      "DELETE " API "/peers/b%2F..%2Fc",
      NULL,
      200,
      "{}",
      "peer 'b/../c' was removed\n" },
    { { "peer-remove", ".." },
      "DELETE " API "/peers/%2E%2E",
      NULL,
      200,
      "{}",
      "peer '..' was removed\n" },
    { { "protect", "web01", "--to", "b" },
      "POST " API "/replications",
      "{\"domain\":\"web01\",\"peer\":\"b\"}",
      202,
      running_json,
      "task t1 was started; follow it with: virt-dr task-wait t1\n" },
    { { "protect", "web01", "--to", "b", "--rpo", "2s", "--storage", "fast",
        "--exclude-disk", "vdb", "--exclude-disk", "vdc" },
      "POST " API "/replications",
      "{\"domain\":\"web01\",\"peer\":\"b\",\"rpo\":2000,\"storage\":\"fast\","
      "\"excludedDisks\":[\"vdb\",\"vdc\"]}",
      202,
      running_json,
      "task t1 was started" },
    { { "protect", "web01", "--to", "b", "--window", "8h", "--max-size", "50GiB",
        "--rules", "hourly:24" },
      "POST " API "/replications",
      "{\"domain\":\"web01\",\"peer\":\"b\",\"retention\":{\"window\":28800000,"
      "\"maxBytes\":53687091200,\"rules\":\"hourly:24\"}}",
      202,
      running_json,
      "task t1 was started" },
    { { "points", "web01", "--plan", "--rules", "hourly:24 daily:7", "--window=1h",
        "--max-size", "0", "-n", "5" },
      "GET " API "/replications/web01/points?plan=true&limit=5&window=1h&maxSize=0"
      "&rules=hourly%3A24%20daily%3A7",
      NULL,
      200,
      "{\"items\":[],\"plan\":{\"window\":{\"window\":3600000,\"maxBytes\":4096,"
      "\"have\":3,\"bytes\":1024,\"from\":1772361720123,\"oldest\":null},"
      "\"rules\":[{\"name\":\"hourly\",\"distance\":3600000,\"numberOfInstances\":24,"
      "\"have\":2,\"from\":1772361720123,\"oldest\":1772361720123}],\"kept\":5,"
      "\"dropped\":2,\"droppedBytes\":2048}}",
      "window  1h        all        3         2026-03-01 10:42:00.123  -\n"
      "hourly  1h        24         2         2026-03-01 10:42:00.123  "
      "2026-03-01 10:42:00.123\n"
      "the window has 1.0 KiB of at most 4.0 KiB; 5 points stay, 2 go (2.0 KiB)\n" },
    { { "pin", "web01", "k9", "--tag", "gold" },
      "POST " API "/replications/web01/points/k9/pin",
      "{\"tag\":\"gold\"}",
      200,
      "{\"id\":\"k9\",\"timestamp\":1772361720123,\"isPinned\":true,"
      "\"tags\":[\"gold\"]}",
      "recovery point 'k9' of 2026-03-01 10:42:00.123 is now: pinned; tags: gold\n" },
    { { "unpin", "web01", "a/b" },
      "POST " API "/replications/web01/points/a%2Fb/unpin",
      "{}",
      200,
      "{\"id\":\"k9\",\"timestamp\":1772361720123}",
      "is now: not pinned; tags: none\n" },
    { { "tag", "web01", "k9", "gold" },
      "POST " API "/replications/web01/points/k9/tags",
      "{\"tag\":\"gold\"}",
      200,
      "{\"id\":\"k9\"}",
      "recovery point 'k9'" },
    { { "untag", "web01", "gold" },
      "DELETE " API "/replications/web01/tags/gold",
      NULL,
      200,
      "{}",
      "no recovery point has the tag 'gold' any more\n" },
    { { "retention", "web01", "--rules", "none", "--window", "0s" },
      "PUT " API "/replications/web01/retention",
      "{\"window\":0,\"rules\":\"none\"}",
      200,
      "{\"window\":0,\"maxBytes\":1024,\"rules\":[]}",
      "Window:           0s\nMax size:         1.0 KiB\nRules:            none\n" },
    { { "bandwidth", "web01", "--limit", "20MiB/s" },
      "PUT " API "/replications/web01/bandwidth",
      "{\"limit\":\"20MiB/s\"}",
      200,
      "{\"limit\":\"20MiB/s\",\"peerLimit\":null,\"rate\":0,\"cyclesOnly\":false}",
      "Limit:            20MiB/s\nOf the peer:      unlimited\nNow:              "
      "unlimited\n" },
    { { "-q", "sync", "web01" },
      "POST " API "/replications/web01/sync",
      "{}",
      202,
      running_json,
      "t1\n" },
    { { "pause", "web01" },
      "POST " API "/replications/web01/pause",
      "{}",
      200,
      replication_json,
      "replication of 'web01' is now: replicating\n" },
    { { "resume", "web01" },
      "POST " API "/replications/web01/resume",
      "{}",
      200,
      replication_json,
      "replication of 'web01' is now: replicating\n" },
    { { "failover", "web01" },
      "POST " API "/replications/web01/failover",
      "{}",
      202,
      running_json,
      "task t1 was started" },
    { { "failover", "web01", "--force" },
      "POST " API "/replications/web01/failover",
      "{\"force\":true}",
      202,
      running_json,
      "task t1 was started" },
    { { "failover", "web01", "--at", "10:42" },
      "POST " API "/replications/web01/failover",
      "{\"point\":{\"type\":\"at\",\"value\":\"10:42\"}}",
      202,
      running_json,
      "task t1 was started" },
    { { "failover", "web01", "--point=before-upgrade", "-f" },
      "POST " API "/replications/web01/failover",
      "{\"force\":true,\"point\":{\"type\":\"id\",\"value\":\"before-upgrade\"}}",
      202,
      running_json,
      "task t1 was started" },
    { { "failover", "web01", "--interval", "10:00/15m" },
      "POST " API "/replications/web01/failover",
      "{\"point\":{\"type\":\"interval\",\"value\":\"10:00\",\"length\":900000}}",
      202,
      running_json,
      "task t1 was started" },
    { { "failover", "web01", "--consistent" },
      "POST " API "/replications/web01/failover",
      "{\"point\":{\"type\":\"consistent\"}}",
      202,
      running_json,
      "task t1 was started" },
    { { "unprotect", "web 01" },
      "DELETE " API "/replications/web%2001",
      NULL,
      202,
      running_json,
      "task t1 was started" },
    { { "unprotect", "web01", "-f" },
      "DELETE " API "/replications/web01?force=true",
      NULL,
      202,
      running_json,
      "task t1 was started" },
    { { "task-cancel", "t1" },
      "DELETE " API "/tasks/t1",
      NULL,
      202,
      running_json,
      "task t1 was asked to stop\n" },
};

static void
every_change_is_asked_for_as_the_api_says(void **state UNUSED)
{
    for (size_t i = 0; i < N_ELEMENTS(changes); i++) {
        const struct change *c = &changes[i];
        AUTOPTR(client_server) *cs = client_server_new();
        AUTOFREE(char) *asked =
            mem_printf("%s%s%s", c->question, c->body == NULL ? "" : " ",
                       c->body == NULL ? "" : c->body);
        struct client_run r;

        client_server_answer(cs, c->question, c->status, c->answer);
        r = run(cs, c->words, asked, 0);
        assert_has(r.out, WORDS(c->shown));
        client_run_clear(&r);
    }
}

static void
one_point_is_chosen_at_most(void **state)
{
    struct client_run r = { 0 };

    client_server_run(*state, WORDS("failover", "web01", "--at", "10:42", "--consistent"),
                      &r);
    assert_int_equal(r.exit_status, error_code_exit(ERROR_USAGE));
    assert_has(r.err, WORDS("--at and --consistent"));
    assert_null(client_server_asked(*state, 0));
    client_run_clear(&r);
}

static void
a_change_in_json_prints_the_answer_and_no_sentence(void **state)
{
    struct client_run r;

    client_server_answer(*state, "POST " API "/replications/web01/sync", 202,
                         running_json);
    r = run(*state, WORDS("sync", "web01", "-o", "json"),
            "POST " API "/replications/web01/sync {}", 0);
    assert_same_json(r.out, running_json);
    assert_string_equal(r.err, "");
    client_run_clear(&r);
}

/* --- events ----------------------------------------------------------------- */

static const char events_text[] =
    "id: 1\nevent: peer-away\n"
    "data: {\"id\":1,\"time\":1772361720123,\"type\":\"peer-away\","
    "\"severity\":\"warning\",\"message\":\"peer 'b' is away\"}\n\n"
    "id: 2\nevent: failover\n"
    "data: {\"id\":2,\"time\":1772361721000,\"type\":\"failover\","
    "\"severity\":\"critical\",\"vmName\":\"web01\",\"message\":\"failed over\"}\n\n";

static void
kept_events_are_printed_and_the_command_ends(void **state)
{
    struct client_run r;

    client_server_answer(*state, "GET " API "/events?since=0", CLIENT_SERVER_STREAM,
                         events_text);
    r = run(*state, WORDS("events"), "GET " API "/events?since=0", 0);
    assert_string_equal(r.out,
                        "2026-03-01T10:42:00.123Z  warning   peer 'b' is away\n"
                        "2026-03-01T10:42:01.000Z  critical  web01: failed over\n");
    client_run_clear(&r);
}

static void
followed_events_are_printed_until_interrupted(void **state)
{
    struct client_run r = { .interrupt_at = "failed over" };

    client_server_answer(*state, "GET " API "/events", CLIENT_SERVER_STREAM, events_text);
    client_server_run(*state, WORDS("events", "--follow", "-o", "json"), &r);
    assert_int_equal(r.exit_status, -1);
    assert_has(r.out, WORDS("{\"id\":1,\"time\":1772361720123,"));
    client_run_clear(&r);
}

static void
a_followed_stream_that_ends_is_an_error(void **state)
{
    struct client_run r;

    client_server_answer(*state, "GET " API "/events", CLIENT_SERVER_ENDING, events_text);
    r = run(*state, WORDS("events", "-f"), "GET " API "/events",
            error_code_exit(ERROR_CONNECT));
    client_run_clear(&r);
}

/* --- errors ----------------------------------------------------------------- */

static void
every_code_of_an_answer_becomes_its_exit_status(void **state UNUSED)
{
    for (int i = 0; i < ERROR_N_CODES; i++) {
        enum error_code code = (enum error_code)i;
        AUTOPTR(client_server) *cs = client_server_new();
        AUTOFREE(char) *body =
            mem_printf("{\"code\":\"%s\",\"message\":\"it was \\u001b[7m so\"}",
                       error_code_string(code));
        struct client_run r;

        client_server_answer(cs, "GET " API "/host", error_code_http(code), body);
        r = run(cs, WORDS("host-info"), "GET " API "/host", error_code_exit(code));
        assert_has(r.err, WORDS("virt-dr: error: it was ?[7m so\n"));
        assert_string_equal(r.out, "");
        client_run_clear(&r);
    }
}

static void
a_hint_follows_an_error_that_has_one(void **state)
{
    struct client_run r;

    client_server_answer(
        *state, "GET " API "/replications/nope", 404,
        "{\"code\":\"VmReplicationNotFound\",\"message\":\"no 'nope'\"}");
    r = run(*state, WORDS("info", "nope"), "GET " API "/replications/nope",
            error_code_exit(ERROR_REPLICATION_NOT_FOUND));
    assert_string_equal(r.err, "virt-dr: error: no 'nope'\n"
                               "virt-dr: hint: virt-dr list shows what is protected\n");
    client_run_clear(&r);
}

static void
a_missing_daemon_is_said_with_what_to_do(void **state)
{
    struct client_run r = { .without_connect = "" };

    client_server_run(*state, WORDS("list", "-c", "unix:///nonexistent/virtdrd.sock"),
                      &r);
    assert_int_equal(r.exit_status, error_code_exit(ERROR_CONNECT));
    assert_has(r.err, WORDS("virt-dr: hint: is virtdrd running? systemctl status "
                            "virtdrd\n"));
    client_run_clear(&r);
}

static void
the_address_can_come_from_the_environment(void **state)
{
    struct client_run r = { .without_connect = "" };

    client_server_answer(*state, "GET " API "/host", 200, host_json);
    setenv("VIRT_DR_CONNECT", client_server_address(*state), 1);
    client_server_run(*state, WORDS("host-info"), &r);
    unsetenv("VIRT_DR_CONNECT");
    assert_int_equal(r.exit_status, 0);
    client_run_clear(&r);
}

static void
bad_command_lines_exit_with_2_and_a_hint_before_anything_is_asked(void **state)
{
    static const char *const lines[][6] = {
        { "frobnicate" },
        { "info" },
        { "info", "a", "--bogus" },
        { "protect", "a", "--to", "b", "--rpo" },
        { "protect", "a", "--to", "b", "--rpo=soon" },
        { "list", "--connect", "http://host:1" },
        { "help", "frobnicate" },
    };

    for (size_t i = 0; i < N_ELEMENTS(lines); i++) {
        struct client_run r = { .without_connect = "" };

        client_server_run(*state, lines[i], &r);
        assert_int_equal(r.exit_status, 2);
        assert_has(r.err, WORDS("virt-dr: error: ", "\nvirt-dr: hint: virt-dr help"));
        assert_string_equal(r.out, "");
        client_run_clear(&r);
    }
    assert_null(client_server_asked(*state, 0));
}

static void
https_needs_our_certificate_and_who_to_expect(void **state)
{
    static const char *const lines[][9] = {
        { "list", "-c", "https://h:1" },
        { "list", "-c", "https://h:1", "--cert", "c", "--key", "k" },
        { "list", "-c", "https://h:1", "--ca", "x" },
        { "list", "-c", "https://h:1", "--cert=c", "--key=k", "--ca=x",
          "--fingerprint=00" },
    };

    for (size_t i = 0; i < N_ELEMENTS(lines); i++) {
        struct client_run r = { .without_connect = "" };

        client_server_run(*state, lines[i], &r);
        assert_int_equal(r.exit_status, 2);
        client_run_clear(&r);
    }
}

static void
help_and_version_need_no_daemon(void **state)
{
    struct client_run r = { .without_connect = "" };

    client_server_run(*state, WORDS("help"), &r);
    assert_int_equal(r.exit_status, 0);
    assert_has(r.out, WORDS("Virtual machines:\n", "  protect ", "--no-progress"));
    client_run_clear(&r);
    r.without_connect = "";
    client_server_run(*state, WORDS("protect", "--help"), &r);
    assert_int_equal(r.exit_status, 0);
    assert_has(r.out, WORDS("virt-dr protect DOMAIN --to PEER [--rpo DURATION]",
                            "[--exclude-disk TARGET]...", "Options:\n"));
    client_run_clear(&r);
    r.without_connect = "";
    client_server_run(*state, WORDS("version", "-o", "json"), &r);
    assert_int_equal(r.exit_status, 0);
    assert_same_json(r.out, "{\"name\":\"virt-dr\",\"version\":\"" PACKAGE_VERSION "\"}");
    client_run_clear(&r);
}

static void
only_a_terminal_gets_colours(void **state)
{
    AUTOFREE(char) *body = mem_printf("{\"items\":[%s]}", replication_json);
    struct client_run tty = { .on_terminal = true };
    struct client_run pipe = { 0 };

    client_server_answer(*state, "GET " API "/replications", 200, body);
    client_server_run(*state, WORDS("list"), &tty);
    assert_has(tty.out, WORDS("\033[33myellow\033[0m", "RPO was violated"));
    client_server_run(*state, WORDS("list"), &pipe);
    assert_null(strchr(pipe.out, '\033'));
    client_run_clear(&tty);
    client_run_clear(&pipe);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_is_shown_to_people_and_to_programs),
        TEST(a_list_of_tasks_can_be_limited),
        TEST(a_quiet_list_is_names_alone),
        TEST(an_answer_of_other_shapes_breaks_nothing),
        TEST(an_answer_without_items_is_a_protocol_error),
        cmocka_unit_test(every_change_is_asked_for_as_the_api_says),
        TEST(one_point_is_chosen_at_most),
        TEST(a_change_in_json_prints_the_answer_and_no_sentence),
        TEST(kept_events_are_printed_and_the_command_ends),
        TEST(followed_events_are_printed_until_interrupted),
        TEST(a_followed_stream_that_ends_is_an_error),
        cmocka_unit_test(every_code_of_an_answer_becomes_its_exit_status),
        TEST(a_hint_follows_an_error_that_has_one),
        TEST(a_missing_daemon_is_said_with_what_to_do),
        TEST(the_address_can_come_from_the_environment),
        TEST(bad_command_lines_exit_with_2_and_a_hint_before_anything_is_asked),
        TEST(https_needs_our_certificate_and_who_to_expect),
        TEST(help_and_version_need_no_daemon),
        TEST(only_a_terminal_gets_colours),
    };

    setenv("TZ", "UTC", 1); /* the program shows local time */
    return cmocka_run_group_tests_name("client commands", tests, NULL, NULL);
}
