/* The API's answers as they came, for programs. */
#include "client/writer_ops.h"

/*
 * json-c escapes C0 only. DEL and C1 occur within strings alone, so that they
 * can be escaped in the text: a terminal may take U+009B for a command.
 */
static void
put_json(struct sink *sink, struct json_object *o, int flags)
{
    const char *s =
        json_object_to_json_string_ext(o, flags | JSON_C_TO_STRING_NOSLASHESCAPE);

    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)s[0], next = (unsigned char)s[1];

        if (c == 0x7f)
            fputs("\\u007f", sink->out);
        else if (c == 0xc2 && next >= 0x80 && next <= 0x9f)
            fprintf(sink->out, "\\u%04x", *++s & 0xff);
        else
            fputc(c, sink->out);
    }
    fputc('\n', sink->out);
}

static void
json_answer(struct sink *sink, struct json_object *answer)
{
    put_json(sink, answer, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED);
}

static void
json_item(struct sink *sink, struct json_object *item)
{
    put_json(sink, item, JSON_C_TO_STRING_PLAIN);
}

const struct writer_ops writer_json_ops = {
    .name = "json",
    .answer = json_answer,
    .item = json_item,
};
