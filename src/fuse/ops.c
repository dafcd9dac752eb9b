/* The table of operations and what is agreed with the kernel at the start. */
#include "ops.h"

#include "channel.h"
#include "core/log.h"

/* Asynchronous requests (read-ahead, asynchronous direct I/O) that the kernel
 * has under way at once. */
#define MAX_BACKGROUND 4096

static const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS;

/* ATOMIC_O_TRUNC is not wanted, so that O_TRUNC arrives as a setattr, which
 * says no but for files of the control tree. Splicing a request costs more than reading it into its place. */
static const unsigned unwanted = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				 FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS |
				 FUSE_CAP_READDIRPLUS_AUTO;

/* The kernel drops its pages when it is told to (node.h); one before Linux 5.2 whenever a file's time moves. */
static void want_pages_kept(struct fuse_conn_info *conn)
{
	unsigned by_time = FUSE_CAP_AUTO_INVAL_DATA, when_told = FUSE_CAP_EXPLICIT_INVAL_DATA;

	conn->want &= ~(by_time | when_told);
	conn->want |= conn->capable & when_told ? when_told : conn->capable & by_time;
}

static void op_init(void *opaque, struct fuse_conn_info *conn)
{
	struct session *session = opaque;

	conn->want |= wanted & conn->capable;
	conn->want &= ~unwanted;
	want_pages_kept(conn);
	conn->max_write = CHANNEL_PAYLOAD_BYTES;
	conn->max_read = (unsigned)session->options->max_read;
	conn->max_readahead = MIN(conn->max_readahead, CHANNEL_PAYLOAD_BYTES);
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND / 4 * 3;
	conn->time_gran = 1;
	session->parallel_lookups = conn->want & FUSE_CAP_PARALLEL_DIROPS;
	log_debug(LOG_FUSE, "kernel protocol %u.%u, capabilities 0x%x of 0x%x", conn->proto_major, conn->proto_minor,
		  conn->want, conn->capable);
}

/* What is missing here the kernel does itself (locks), does not need, or
 * refuses for good after one try (extended attributes). With a poll the kernel would ask for it
 * before each read and write by io_uring, of every file: that halves their rate. */
const struct fuse_lowlevel_ops session_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.access = op_access,
	.statfs = op_statfs,
	.open = op_open,
	.create = op_create,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.unlink = op_unlink,
	.rename = op_rename,
	.rmdir = op_rmdir,
	.mkdir = op_mkdir,
	.mknod = op_mknod,
	.symlink = op_symlink,
	.link = op_link,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
};
