/* Write trace for crash tests, in the tests' build (-DLEAFDISK_FAULTS) only.
 *
 * With LEAFDISK_TRACE=DIR in the environment, DIR/trace.bin gets a record
 *     W  of each piece of data when the kernel has written it,
 *     B  when a datasync begins, before the kernel has it,
 *     F  when that datasync has succeeded.
 * of every image and cache, by the queue or by blocking calls.
 * What a W wrote before a B is durable once the F of that B's file follows;
 * anything else may be lost or torn in a crash. A record is the struct below,
 * little endian, then the file's name and, for a W, the data. The last record
 * may be cut off by the end of the process. Any thread. */
#ifndef LEAFDISK_CORE_TRACE_H
#define LEAFDISK_CORE_TRACE_H

#include <stdint.h>

#include "core/bytes.h"

enum trace_type { TRACE_WRITE = 'W', TRACE_BEGIN = 'B', TRACE_FLUSHED = 'F' };

struct trace_record_ondisk {
	char type;
	uint8_t pad[3];
	le32 name_bytes;
	le64 offset;
	le32 length; /* bytes of data that follow the name */
	le32 pad2;
} __attribute__((packed));
_Static_assert(sizeof(struct trace_record_ondisk) == 24, "trace record");

#ifdef LEAFDISK_FAULTS
void trace_append(enum trace_type type, const char *name, uint64_t offset, const void *data, uint32_t length);
#else
static inline void trace_append(enum trace_type type, const char *name, uint64_t offset, const void *data,
				uint32_t length)
{
	(void)type;
	(void)name;
	(void)offset;
	(void)data;
	(void)length;
}
#endif

#endif
