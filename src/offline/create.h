/* Making an image under its hidden name. */
#ifndef LEAFDISK_OFFLINE_CREATE_H
#define LEAFDISK_OFFLINE_CREATE_H

#include "offline/offline.h"
#include "whole.h"

/* At the hidden path of WHOLE, which is begun. *NOTE: as for offline_create(). */
bool create_image(const struct whole *whole, const struct offline_create_options *options, char **note, GError **error);

#endif
