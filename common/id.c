#include "common/id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>

void
id_new(char ret[ID_TEXT])
{
    sd_id128_t id;

    if (sd_id128_randomize(&id) < 0)
        abort(); /* no random numbers: nothing that follows would be safe */
    snprintf(ret, ID_TEXT,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             SD_ID128_FORMAT_VAL(id));
}

bool
id_is_valid(const char *text)
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (strlen(text) != ID_TEXT - 1)
        return false;
    for (size_t i = 0; i < ID_TEXT - 1; i++)
        if (shape[i] == '-' ? text[i] != '-'
                            : strchr("0123456789abcdef", text[i]) == NULL)
            return false;
    return true;
}
