/* Who may write an image: claims by owner records. All of it blocks; an image
 * is claimed and released by one thread at a time. */
#ifndef LEAFDISK_OWNER_OWNER_H
#define LEAFDISK_OWNER_OWNER_H

#include "core/answer.h"
#include "owner/record.h"

/* This process, as its records name it. */
struct owner_self {
	char *host;
	char *boot_id;
	uint8_t machine_id[OWNER_ID_BYTES]; /* zeros: it has none */
	int64_t pid;
	uint64_t pid_start; /* when the process began, in the kernel's count; 0: not known */
	uint64_t pid_space; /* the namespace of PID; 0: not known */
	uint8_t mount_id[OWNER_ID_BYTES];
	uint8_t cache_id[OWNER_ID_BYTES]; /* zeros: no cache */
	char *cache_path;		  /* NULL: no cache */
	uint64_t cache_generation;	  /* of its log in this mount; 0: no cache */
	/* Of its mounts the numbers, mount_id in their records, each at its generation modulo
	 * OWNER_MOUNTS; zeros: not known. NULL: none is. */
	uint8_t (*cache_mounts)[OWNER_ID_BYTES];
};
#define OWNER_MOUNTS 112
/* After any fork. CACHE_PATH and CACHE_ID may be NULL. */
void owner_self_init(struct owner_self *self, const char *cache_path, const uint8_t *cache_id);
void owner_self_clear(struct owner_self *self);

/* The rows of the table in owner.c. */
enum owner_verdict {
	OWNER_FREE,	/* clean */
	OWNER_MINE,	/* this mount's, or the cache with its changes is ours */
	OWNER_STALE,	/* of this host, and whoever it was is gone */
	OWNER_LIVE,	/* of this host, and it runs */
	OWNER_FOREIGN,	/* another host's */
	OWNER_IN_CACHE, /* another cache may have its newest changes */
	OWNER_IN_COPY,	/* another copy of our cache may, and ours is older */
};
/* LOCKED: the caller holds the image's lock, against other processes wherever they are. */
enum owner_verdict owner_judge(const struct owner_record *record, const struct owner_self *self, bool locked);

/* True: SELF may write the image. False and EBUSY: a sentence with the owner
 * and what to do; another errno: the record cannot be read. */
bool owner_allows(const char *pool, const char *name, const struct owner_self *self, bool locked, GError **error);

/* A claim, as the record, the log and the image know it. */
struct owner_claim {
	uint64_t generation; /* of the record; 0: none */
	uint8_t nonce[OWNER_ID_BYTES];
};

/* What an image says of its last claim. */
struct owner_image {
	enum answer has_nonce; /* YES: NONCE, zeros where it was never claimed; NO: it has no place for it */
	uint8_t nonce[OWNER_ID_BYTES];
	uint64_t progress; /* under that claim: the order up to which it may have its cache's changes; 0: not known */
	uint64_t inode;	   /* 0: it is not known by that */
	uint64_t born_ns;  /* of its file; 0: not known */
	bool unmarked;	   /* it bears neither a claim nor an identity */
};

/* What a new claim finds. */
struct owner_last {
	const struct owner_self *self;
	const struct owner_record *record; /* NULL: there is none */
	const struct owner_image *image;
	uint64_t owned; /* the generation of this cache's last claim; 0: the last was another's */
	bool goes_on;	/* that one has not ended */
};

struct owner_want {
	const char *mode;
	uint64_t image_generation;
	struct owner_image image;
	const uint8_t *nonce; /* that the image is written under already; NULL: a new one */
	bool locked;	      /* the caller holds the image's lock, which others respect */
	/* Called when the claim is allowed, before it is recorded. CLAIM is the next: its
	 * generation is above every one before, its nonce is WANT's or new; where the last claim goes
	 * on both may be that one's instead, or the generation the one after it. False and
	 * ERROR end it. NULL: nothing to do. */
	bool (*prepare)(void *opaque, const struct owner_last *last, struct owner_claim *claim, GError **error);
	void *opaque;
};
/* When owner_allows(), writes the record, unclean, with *CLAIM. In modes that keep nothing back from the image a
 * record that cannot be written for want of room or rights is only warned of, and the generation is 0. */
bool owner_claim(const char *pool, const char *name, const struct owner_self *self, const struct owner_want *want,
		 struct owner_claim *claim, GError **error);
/* Whether that claim still stands. UNKNOWN and WHY: its record is gone, is no record, or
 * cannot be read. */
enum answer owner_check(const char *pool, const char *name, const struct owner_self *self, uint64_t generation,
			GError **why);
/* Says that all is in the image, if the claim still stands: with the image's lock held, so
 * that nobody claims meanwhile. NO and ERROR: another has taken the image over. UNKNOWN
 * and ERROR: the record cannot be read or written. GENERATION 0: nothing to do. */
enum answer owner_release(const char *pool, const char *name, const struct owner_self *self, uint64_t generation,
			  GError **error);

/* "host web1 (pid 12, mode direct, since ...)". g_free. */
char *owner_describe(const struct owner_record *record);

/* Where the record of an image is: POOL and NAME as above. */
typedef struct owner_place {
	char *pool;
	char *name;
} owner_place;
/* Of the image at PATH as a tool was given it, links followed. False for a block
 * device, whose directory is no pool. */
bool owner_place_init(struct owner_place *place, const char *path);
void owner_place_clear(struct owner_place *place);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(owner_place, owner_place_clear)

/* An image is renamed from OLD to FILE, or removed (FILE NULL), between these
 * two, and its record with it. Refused (EBUSY) when the image, or one that it
 * replaces, has changes elsewhere, or another owner. END pairs with a BEGIN that
 * returned true. */
struct owner_move {
	owner_place from, to;
	bool moves;	 /* OLD is the image itself, no link to it */
	bool has_record; /* FROM has one, and TO the same now */
	bool has_replaced;
	struct owner_record replaced; /* what TO had */
};
bool owner_move_begin(struct owner_move *move, const struct owner_self *self, const char *old, const char *file,
		      GError **error);
void owner_move_end(struct owner_move *move, bool moved);

/* ERROR says that the image is locked: adds by whom. */
void owner_explain_lock(const struct owner_place *place, GError **error);

#endif
