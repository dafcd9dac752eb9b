/* The control tree, MOUNTPOINT/.leafdisk: the names in it. The daemon makes it,
 * leafctl reads and writes it, leafdisk(8) explains it, and a test holds the page to
 * these lists. */
#ifndef LEAFDISK_CONTROL_TREE_H
#define LEAFDISK_CONTROL_TREE_H

#include <stddef.h>

/* In the top directory. The name of a disk ends in ".img", so none has it. */
#define CONTROL_NAME ".leafdisk"

/* What can be written at once, and is one command. */
#define CONTROL_COMMAND_BYTES_MAX 4096

/* ENTRY(symbol, directory, name); the directory's symbol. No name: one for each disk,
 * or for each tunable, with its name. */
#define CONTROL_ENTRIES(ENTRY)                                                                                         \
	ENTRY(TOP, TOP, CONTROL_NAME)                                                                                  \
	ENTRY(CACHE, TOP, "cache")                                                                                     \
	ENTRY(CACHE_INFO, CACHE, "info")                                                                               \
	ENTRY(DISKS, TOP, "disks")                                                                                     \
	ENTRY(DISK, DISKS, NULL)                                                                                       \
	ENTRY(DISK_CHAIN, DISK, "chain")                                                                               \
	ENTRY(DISK_DRAIN, DISK, "drain")                                                                               \
	ENTRY(DISK_INFO, DISK, "info")                                                                                 \
	ENTRY(DISK_LAST_ERROR, DISK, "last_error")                                                                     \
	ENTRY(DISK_LATENCY, DISK, "latency")                                                                           \
	ENTRY(DISK_MODE, DISK, "mode")                                                                                 \
	ENTRY(DISK_PAUSE, DISK, "pause")                                                                               \
	ENTRY(DISK_REQUESTS, DISK, "requests")                                                                         \
	ENTRY(DISK_SIZE, DISK, "size")                                                                                 \
	ENTRY(DISK_SNAPSHOTS, DISK, "snapshots")                                                                       \
	ENTRY(DISK_STATE, DISK, "state")                                                                               \
	ENTRY(DISK_STATS, DISK, "stats")                                                                               \
	ENTRY(TUNABLES, TOP, "tunables")                                                                               \
	ENTRY(TUNABLE, TUNABLES, NULL)                                                                                 \
	ENTRY(CONFIG, TOP, "config")                                                                                   \
	ENTRY(DRAIN, TOP, "drain")                                                                                     \
	ENTRY(EVENTS, TOP, "events")                                                                                   \
	ENTRY(LAST_ERROR, TOP, "last_error")                                                                           \
	ENTRY(METRICS, TOP, "metrics")                                                                                 \
	ENTRY(PID, TOP, "pid")                                                                                         \
	ENTRY(SNAPSHOTS, TOP, "snapshots")                                                                             \
	ENTRY(STATS, TOP, "stats")                                                                                     \
	ENTRY(VERSION, TOP, "version")

/* KEY(symbol, entry, name): the lines of a file that has lines of "key: value". */
#define CONTROL_KEYS(KEY)                                                                                              \
	KEY(IMAGE, DISK_INFO, "image")                                                                                 \
	KEY(FORMAT, DISK_INFO, "format")                                                                               \
	KEY(SIZE_BYTES, DISK_INFO, "size_bytes")                                                                       \
	KEY(ALLOCATED_BYTES, DISK_INFO, "allocated_bytes")                                                             \
	KEY(WRITABLE, DISK_INFO, "writable")                                                                           \
	KEY(OPENS, DISK_INFO, "opens")                                                                                 \
	KEY(LAYERS, DISK_INFO, "layers")                                                                               \
	KEY(OWNER, DISK_INFO, "owner")                                                                                 \
	KEY(STATE, DISK_STATE, "state")                                                                                \
	KEY(REASON, DISK_STATE, "reason")                                                                              \
	KEY(SINCE, DISK_STATE, "since")                                                                                \
	KEY(DIRTY_BYTES, DISK_STATE, "dirty_bytes")                                                                    \
	KEY(DIRTY_AGE_MS, DISK_STATE, "dirty_age_ms")                                                                  \
	KEY(STATE_SIZE_BYTES, DISK_STATE, "size_bytes")                                                                \
	KEY(STATE_ALLOCATED_BYTES, DISK_STATE, "allocated_bytes")                                                      \
	KEY(STATE_OPENS, DISK_STATE, "opens")                                                                          \
	KEY(STATE_LAYERS, DISK_STATE, "layers")                                                                        \
	KEY(STATE_OWNER, DISK_STATE, "owner")                                                                          \
	KEY(LATENCY_SINCE, DISK_LATENCY, "since")                                                                      \
	KEY(READ, DISK_LATENCY, "read")                                                                                \
	KEY(READ_BUCKETS, DISK_LATENCY, "read_buckets")                                                                \
	KEY(WRITE, DISK_LATENCY, "write")                                                                              \
	KEY(WRITE_BUCKETS, DISK_LATENCY, "write_buckets")                                                              \
	KEY(FLUSH, DISK_LATENCY, "flush")                                                                              \
	KEY(FLUSH_BUCKETS, DISK_LATENCY, "flush_buckets")                                                              \
	KEY(DISCARD, DISK_LATENCY, "discard")                                                                          \
	KEY(DISCARD_BUCKETS, DISK_LATENCY, "discard_buckets")                                                          \
	KEY(IN_WORK, DISK_REQUESTS, "in_work")                                                                         \
	KEY(WAITING, DISK_REQUESTS, "waiting")                                                                         \
	KEY(BYTES, DISK_REQUESTS, "bytes")                                                                             \
	KEY(OLDEST_MS, DISK_REQUESTS, "oldest_ms")                                                                     \
	KEY(REQUEST, DISK_REQUESTS, "request")

/* WORD(symbol, entry, text): values that are words of ours. */
#define CONTROL_WORDS(WORD)                                                                                            \
	WORD(YES, DISK_INFO, "yes")                                                                                    \
	WORD(NO, DISK_INFO, "no")                                                                                      \
	WORD(PAUSE, DISK_PAUSE, "pause")                                                                               \
	WORD(RESUME, DISK_PAUSE, "resume")                                                                             \
	WORD(HELD, DISK_PAUSE, "held")                                                                                 \
	WORD(CLOSING, DISK_PAUSE, "closing")                                                                           \
	WORD(NOTHING, DISK_REQUESTS, "nothing")                                                                        \
	WORD(TURN, DISK_REQUESTS, "turn")                                                                              \
	WORD(GATE, DISK_REQUESTS, "gate")                                                                              \
	WORD(RANGE, DISK_REQUESTS, "range")                                                                            \
	WORD(STORE, DISK_REQUESTS, "store")                                                                            \
	WORD(FETCH, DISK_REQUESTS, "fetch")                                                                            \
	WORD(TRANSFER, DISK_REQUESTS, "transfer")                                                                      \
	WORD(ROOM, DISK_REQUESTS, "room")                                                                              \
	WORD(MIGRATION, DISK_REQUESTS, "migration")                                                                    \
	WORD(WAIT, EVENTS, "wait")                                                                                     \
	WORD(RESET, STATS, "reset")                                                                                    \
	WORD(RESET_DISK, DISK_STATS, "reset")

enum control_entry {
#define CONTROL_ENUM(symbol, directory, name) CONTROL_##symbol,
	CONTROL_ENTRIES(CONTROL_ENUM)
#undef CONTROL_ENUM
		CONTROL_ENTRY_COUNT
};

enum control_key {
#define CONTROL_ENUM(symbol, entry, name) CONTROL_KEY_##symbol,
	CONTROL_KEYS(CONTROL_ENUM)
#undef CONTROL_ENUM
		CONTROL_KEY_COUNT
};

enum control_word {
#define CONTROL_ENUM(symbol, entry, text) CONTROL_WORD_##symbol,
	CONTROL_WORDS(CONTROL_ENUM)
#undef CONTROL_ENUM
		CONTROL_WORD_COUNT
};

/* NULL: the name is that of a disk or a tunable. */
static inline const char *control_entry_name(enum control_entry entry)
{
	static const char *const names[] = {
#define CONTROL_TEXT(symbol, directory, name) [CONTROL_##symbol] = name,
		CONTROL_ENTRIES(CONTROL_TEXT)
#undef CONTROL_TEXT
	};

	return names[entry];
}

/* The directory that ENTRY is in; of the tree itself, the tree. */
static inline enum control_entry control_entry_directory(enum control_entry entry)
{
	static const enum control_entry directories[] = {
#define CONTROL_PLACE(symbol, directory, name) [CONTROL_##symbol] = CONTROL_##directory,
		CONTROL_ENTRIES(CONTROL_PLACE)
#undef CONTROL_PLACE
	};

	return directories[entry];
}

static inline const char *control_key_name(enum control_key key)
{
	static const char *const names[] = {
#define CONTROL_TEXT(symbol, entry, name) [CONTROL_KEY_##symbol] = name,
		CONTROL_KEYS(CONTROL_TEXT)
#undef CONTROL_TEXT
	};

	return names[key];
}

static inline const char *control_word_text(enum control_word word)
{
	static const char *const texts[] = {
#define CONTROL_TEXT(symbol, entry, text) [CONTROL_WORD_##symbol] = text,
		CONTROL_WORDS(CONTROL_TEXT)
#undef CONTROL_TEXT
	};

	return texts[word];
}

#endif
