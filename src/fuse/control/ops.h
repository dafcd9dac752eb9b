/* Requests about the control tree; ops_*.c hand over what control_owns(). */
#ifndef LEAFDISK_FUSE_CONTROL_OPS_H
#define LEAFDISK_FUSE_CONTROL_OPS_H

#include "tree.h"

void control_op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void control_op_getattr(fuse_req_t fuse, fuse_ino_t ino);
void control_op_access(fuse_req_t fuse, fuse_ino_t ino, int mask);
void control_op_setattr(fuse_req_t fuse, fuse_ino_t ino, const struct stat *wish, int to_set);
void control_op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);
void control_op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file);
void control_op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size,
		      const struct fuse_file_info *file);
void control_op_release(fuse_req_t fuse, struct fuse_file_info *file);

#endif
