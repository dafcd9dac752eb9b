/* struct stat of a disk and of the top directory.
 *
 * Owner: the pool directory's, or uid= and gid=. Modes: 0600 for a disk, the
 * pool directory's own for the top; with umask=M it is 0666 and 0777 without
 * the bits of M. A disk that cannot be written shows no write bits. */
#include "attributes.h"

#define FILE_MODE 0600
#define SHARED_FILE_MODE 0666
#define SHARED_DIRECTORY_MODE 0777
#define WRITE_BITS 0222

static void fill_owner(const struct session *session, struct stat *st)
{
	const struct mount_options *options = session->options;

	st->st_uid = options->uid == OPTION_UNSET ? session->owner : (uid_t)options->uid;
	st->st_gid = options->gid == OPTION_UNSET ? session->group : (gid_t)options->gid;
}

static mode_t file_mode(const struct session *session, bool writable)
{
	uint64_t umask = session->options->umask;
	mode_t mode = umask == OPTION_UNSET ? FILE_MODE : SHARED_FILE_MODE & ~(mode_t)umask;

	return S_IFREG | (writable ? mode : mode & ~(mode_t)WRITE_BITS);
}

/* Never none where there is a byte: what has no blocks is empty to tar -S and others, and what the cache has of a
 * disk, or a store has not counted yet, is not in the image's. */
static blkcnt_t blocks(const struct disk_attributes *attributes)
{
	uint64_t least = MIN(attributes->size_bytes, BLOCK_SIZE);

	return (blkcnt_t)((MAX(attributes->allocated_bytes, least) + 511) / 512);
}

static void fill(struct session *session, struct node *node, struct disk_attributes *attributes, struct stat *st)
{
	*st = (struct stat){
		.st_ino = node_ino(node),
		.st_mode = file_mode(session, attributes->writable),
		.st_nlink = 1,
		.st_size = (off_t)attributes->size_bytes,
		.st_blksize = BLOCK_SIZE,
		.st_blocks = blocks(attributes),
		.st_atim = attributes->modified,
		.st_mtim = attributes->modified,
		.st_ctim = attributes->modified,
	};
	fill_owner(session, st);
}

int attributes_of_node(struct session *session, struct node *node, struct stat *st)
{
	struct disk *disk = node_disk(session->nodes, node);
	struct disk_attributes attributes;
	int result = disk_get_attributes(disk, &attributes);

	disk_unref(disk);
	if (result == 0)
		fill(session, node, &attributes, st);
	if (result == 0 && node_has_changed(session->nodes, node, &attributes))
		(void)fuse_lowlevel_notify_inval_inode(session->fuse, node_ino(node), 0, 0);
	return result;
}

bool attributes_recall(struct session *session, struct node *node, struct stat *st)
{
	struct disk *disk = node_disk(session->nodes, node);
	struct disk_attributes attributes;
	bool known = disk_recall_attributes(disk, &attributes);

	disk_unref(disk);
	if (known)
		fill(session, node, &attributes, st);
	return known;
}

static void fill_root(const struct session *session, struct stat *st)
{
	uint64_t umask = session->options->umask;

	if (umask != OPTION_UNSET)
		st->st_mode = S_IFDIR | (SHARED_DIRECTORY_MODE & ~(mode_t)umask);
	st->st_ino = FUSE_ROOT_ID;
	st->st_nlink = 3; /* with the control tree */
	fill_owner(session, st);
}

int attributes_of_root(struct session *session, struct stat *st)
{
	int result = disk_pool_stat(session->pool, st);

	if (result == 0)
		fill_root(session, st);
	return result;
}

bool attributes_recall_root(struct session *session, struct stat *st)
{
	bool known = disk_pool_recall_stat(session->pool, st);

	if (known)
		fill_root(session, st);
	return known;
}
