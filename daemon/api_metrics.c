#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/replication_view.h"

/* One metric of every replication; value is a path of members, "a.b". */
static const struct {
    const char *name;
    const char *type;
    const char *help;
    const char *object; /* member of the view, or NULL for the view itself */
    const char *member;
    double scale;
} metrics[] = {
    { "virt_dr_rpo_age_seconds", "gauge", "Age of the newest recovery point; -1: none",
      NULL, "rpoAge", 0.001 },
    { "virt_dr_rpo_set_seconds", "gauge", "The RPO that is set", "settings", "rpo",
      0.001 },
    { "virt_dr_rpo_violation_seconds", "gauge", "By how much the RPO is exceeded", NULL,
      "currentRpoViolation", 1 },
    { "virt_dr_readiness", "gauge",
      "Could it be failed over: 0 ready, 1 with warnings, 2 no; -1 not known",
      "readiness", "level", 1 },
    { "virt_dr_split_brain", "gauge", "1: both hosts run the VM", NULL, "isSplitBrain",
      1 },
    { "virt_dr_cycles_total", "counter", "Recovery points made", "statistics", "cycles",
      1 },
    { "virt_dr_failures_total", "counter", "Cycles that failed", "statistics", "failures",
      1 },
    { "virt_dr_changed_bytes_total", "counter", "Bytes read from the disks", "statistics",
      "changedBytes", 1 },
    { "virt_dr_wire_bytes_total", "counter", "Bytes on the wire", "statistics",
      "wireBytes", 1 },
};

static double
value_of(struct json_object *view, size_t metric)
{
    struct json_object *o = metrics[metric].object != NULL
                                ? json_object_or_null(view, metrics[metric].object)
                                : view;

    return json_double_or(o, metrics[metric].member, 0) * metrics[metric].scale;
}

static void
append(char **text, char *more)
{
    char *longer = mem_printf("%s%s", *text, more);

    free(*text);
    free(more);
    *text = longer;
}

/* A label's value as the exposition format wants it quoted. */
static char *
label(const char *value)
{
    char *quoted = mem_alloc(2 * strlen(value) + 1, 1);
    char *p = quoted;

    for (; *value != '\0'; value++) {
        if (*value == '"' || *value == '\\')
            *p++ = '\\';
        *p++ = (unsigned char)*value < ' ' ? ' ' : *value;
    }
    return quoted;
}

bool
api_metrics(struct rest_request *request, struct error **err UNUSED)
{
    struct daemon *d = request->opaque;
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);
    AUTOJSON *views = json_object_new_array();
    char *text = mem_strdup("");

    for (size_t i = 0; i < n; i++) {
        json_object_array_add(views, replication_view(d, all[i]));
        replication_unref(all[i]);
    }
    for (size_t m = 0; m < N_ELEMENTS(metrics); m++) {
        append(&text, mem_printf("# HELP %s %s\n# TYPE %s %s\n", metrics[m].name,
                                 metrics[m].help, metrics[m].name, metrics[m].type));
        for (size_t i = 0; i < n; i++) {
            struct json_object *view = json_object_array_get_idx(views, i);
            AUTOFREE(char) *vm = label(json_string_or(view, "vmName", ""));

            append(&text,
                   mem_printf("%s{vm=\"%s\",side=\"%s\"} %.3f\n", metrics[m].name, vm,
                              json_string_or(view, "side", ""), value_of(view, m)));
        }
    }
    request->text = text;
    return true;
}
