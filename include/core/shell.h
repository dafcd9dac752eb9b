/* Words for a command line that a person is to type. */
#ifndef LEAFDISK_CORE_SHELL_H
#define LEAFDISK_CORE_SHELL_H

/* TEXT as one word of a shell; as it is where nothing in it needs quotes. g_free. */
char *shell_quote(const char *text);

#endif
