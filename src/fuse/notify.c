/* Tells the service manager how the mount fares.
 *
 * One datagram for each thing told, of lines KEY=VALUE, to the socket that
 * $NOTIFY_SOCKET names: a path, or with "@" an abstract name. A manager that does not
 * take one is no reason to end a mount. */
#include "notify.h"

#include <glib.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"

static struct sockaddr_un manager = {.sun_family = AF_UNIX};
static socklen_t manager_length; /* 0: there is none */

void notify_begin(void)
{
	const char *name = g_getenv("NOTIFY_SOCKET");
	size_t length = name ? strlen(name) : 0;

	if (length < 2 || length >= sizeof(manager.sun_path) || (name[0] != '/' && name[0] != '@'))
		return;
	memcpy(manager.sun_path, name, length);
	if (name[0] == '@')
		manager.sun_path[0] = '\0';
	manager_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static void tell(const char *lines)
{
	int fd;

	if (manager_length == 0)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (struct sockaddr *)&manager, manager_length) < 0)
		log_warning("the service manager is not told \"%s\": %m", lines);
	if (fd >= 0)
		close(fd);
}

void notify_waits(const char *line)
{
	g_autofree char *text = g_strconcat("STATUS=", line, "\nEXTEND_TIMEOUT_USEC=60000000", NULL);

	tell(text);
}

void notify_ready(void)
{
	tell("READY=1");
}

void notify_stopping(void)
{
	tell("STOPPING=1");
}

void notify_status(const char *line)
{
	g_autofree char *text = g_strconcat("STATUS=", line, NULL);

	tell(text);
}
