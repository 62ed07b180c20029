/*
 * Making strings of others fit for a log line, a terminal and JSON.
 *
 * Names come from guests, peers and users, messages from libraries in whatever
 * charset they like. Both functions work in place and never lengthen. Any thread.
 */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

/* Bytes that are not UTF-8 become '?'. */
void text_make_utf8(char *s);

/* As text_make_utf8(); what a terminal takes for a command (C0, DEL, C1) becomes '?' too.
 */
void text_make_printable(char *s);

#endif
