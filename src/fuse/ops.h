/* What the mount answers to: one function for each of libfuse's operations. */
#ifndef LEAFDISK_FUSE_OPS_H
#define LEAFDISK_FUSE_OPS_H

#include "session.h"

extern const struct fuse_lowlevel_ops session_ops;

/* ops_data.c */
void op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file);
void op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size, off_t offset,
	      struct fuse_file_info *file);
void op_flush(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);
void op_fsync(fuse_req_t fuse, fuse_ino_t ino, int datasync, struct fuse_file_info *file);
void op_fallocate(fuse_req_t fuse, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *file);
void op_lseek(fuse_req_t fuse, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *file);

/* ops_attr.c */
void op_getattr(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);
void op_setattr(fuse_req_t fuse, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *file);
void op_statfs(fuse_req_t fuse, fuse_ino_t ino);
void op_access(fuse_req_t fuse, fuse_ino_t ino, int mask);

/* ops_file.c */
void op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);
void op_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file);
void op_release(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);

/* ops_name.c */
void op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t fuse, fuse_ino_t ino, uint64_t count);
void op_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets);
void op_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	       unsigned int flags);
void op_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void op_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode);
void op_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t device);
void op_symlink(fuse_req_t fuse, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t fuse, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);

/* ops_directory.c */
void op_opendir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);
void op_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file);
void op_releasedir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file);

#endif
