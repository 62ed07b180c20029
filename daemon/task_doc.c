#include "daemon/task_doc.h"

#include "common/id.h"
#include "common/json.h"
#include "common/units.h"

struct json_object *
task_doc_new(const char *site, const struct op_kind *kind,
             const struct tasks_request *request)
{
    struct json_object *doc = json_object_new_object();
    struct json_object *steps = json_object_new_array();
    struct json_object *info = json_object_new_object();
    struct json_object *data = NULL;
    char id[ID_TEXT];

    id_new(id);
    for (size_t i = 0; kind->steps[i].name != NULL; i++) {
        struct json_object *step = json_object_new_object();

        json_set_string(step, "name", kind->steps[i].name);
        json_set_string(step, "state", "pending");
        json_object_array_add(steps, step);
    }
    json_set_string(info, "type", kind->name);
    json_set_string(info, "resourceId", request->resource_id);
    json_set_string(info, "resourceName", request->resource_name);
    json_set_string(info, "resourceType",
                    request->resource_type != NULL ? request->resource_type
                                                   : "replication");
    json_set_string(doc, "id", id);
    json_set_string(doc, "type", kind->name);
    json_set_string(doc, "state", "RUNNING");
    json_set_int(doc, "progress", 0);
    json_set_string(doc, "step", kind->steps[0].name);
    json_set(doc, "steps", steps);
    json_set(doc, "transfer", NULL);
    json_set_int(doc, "startTime", units_now_ms());
    json_set_int(doc, "endTime", -1);
    json_set_int(doc, "lastUpdated", units_now_ms());
    json_set_string(doc, "user", request->user);
    json_set_string(doc, "site", site);
    json_set(doc, "error", NULL);
    json_set(doc, "warnings", json_object_new_array());
    json_set(doc, "result", NULL);
    json_set_string(doc, "resultType", kind->result_type);
    json_set(doc, "workflowInfo", info);
    if (request->data != NULL)
        json_object_deep_copy(request->data, &data, NULL);
    json_set(doc, "data", data != NULL ? data : json_object_new_object());
    return doc;
}
