/* The requests of a disk, for who asks what it does: tapdisk's debug dump. */
#include "disk/requests.h"

#include "disk/object.h"

const char *disk_op_name(enum disk_op op)
{
	static const char *const names[] = {
		[DISK_READ] = "read",	[DISK_WRITE] = "write",	  [DISK_DISCARD] = "discard", [DISK_ZERO] = "zero",
		[DISK_FLUSH] = "flush", [DISK_RESIZE] = "resize", [DISK_GROW] = "grow",
	};

	return names[op];
}

static struct disk_request request_of(const struct disk_io *io, uint64_t now_ns)
{
	return (struct disk_request){
		.op = io->op,
		.offset = io->offset,
		.length = io->length,
		.age_ns = now_ns - MIN(io->submitted_ns, now_ns),
		.phase = atomic_load_explicit(&io->phase_name, memory_order_relaxed),
		.wait = atomic_load_explicit(&io->wait, memory_order_relaxed),
	};
}

/* Their number, and room for some that come meanwhile: nothing is allocated under the lock. */
static guint room_for(struct disk *disk)
{
	guint count = 64;

	LOCK_GUARD(&disk->lock);
	list_foreach(node, &disk->requests)
	{
		count++;
	}
	return count;
}

GArray *disk_get_requests(struct disk *disk)
{
	guint room = room_for(disk);
	GArray *requests = g_array_sized_new(FALSE, FALSE, sizeof(struct disk_request), room);
	uint64_t now_ns = loop_now_ns();

	LOCK_GUARD(&disk->lock);
	list_foreach(node, &disk->requests)
	{
		struct disk_request request = request_of(container_of(node, struct disk_io, all), now_ns);

		if (requests->len == room)
			break;
		g_array_append_val(requests, request);
	}
	return requests;
}
