/* The verbs of leafctl: a function for each row of the table. */
#ifndef LEAFDISK_CTL_VERBS_H
#define LEAFDISK_CTL_VERBS_H

#include "ctl.h"

/* Ends with a NULL name. */
extern const struct ctl_verb ctl_verbs[];

int ctl_create(const struct ctl_arguments *arguments);
int ctl_clone(const struct ctl_arguments *arguments);
int ctl_forget_child(const struct ctl_arguments *arguments);
int ctl_rebase(const struct ctl_arguments *arguments);
int ctl_info(const struct ctl_arguments *arguments);
int ctl_check(const struct ctl_arguments *arguments);
int ctl_map(const struct ctl_arguments *arguments);
int ctl_convert(const struct ctl_arguments *arguments);
int ctl_resize(const struct ctl_arguments *arguments);
int ctl_list(const struct ctl_arguments *arguments);
int ctl_cache_create(const struct ctl_arguments *arguments);
int ctl_cache_info(const struct ctl_arguments *arguments);
int ctl_cache_check(const struct ctl_arguments *arguments);
int ctl_cache_dump(const struct ctl_arguments *arguments);
int ctl_cache_adopt(const struct ctl_arguments *arguments);
int ctl_cache_purge(const struct ctl_arguments *arguments);
int ctl_unlock(const struct ctl_arguments *arguments);
int ctl_cache_drain(const struct ctl_arguments *arguments);
int ctl_status(const struct ctl_arguments *arguments);
int ctl_top(const struct ctl_arguments *arguments);
int ctl_events(const struct ctl_arguments *arguments);
int ctl_umount(const struct ctl_arguments *arguments);
int ctl_drain(const struct ctl_arguments *arguments);
int ctl_pause(const struct ctl_arguments *arguments);
int ctl_resume(const struct ctl_arguments *arguments);
int ctl_mode(const struct ctl_arguments *arguments);
int ctl_snapshot(const struct ctl_arguments *arguments);
int ctl_fork(const struct ctl_arguments *arguments);
int ctl_revert(const struct ctl_arguments *arguments);
int ctl_delete(const struct ctl_arguments *arguments);
int ctl_keep(const struct ctl_arguments *arguments);
int ctl_snapshots(const struct ctl_arguments *arguments);
int ctl_set(const struct ctl_arguments *arguments);

#endif
