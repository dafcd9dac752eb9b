"""The cache's log goes round many times in mode writeback, with nothing but room
to make writing back begin: all of it arrives, and nothing stands still."""
import os

import pytest

from harness import (BLOCK, MIB, assert_same, converted, make_image, opened, program, run, scaled,
                     write_all)

DISK_BYTES = 32 * MIB
LAPS = scaled(12, 100)


@pytest.mark.parametrize("cache_mib", [8, 24])
@pytest.mark.parametrize("blocks", [1, 61])
def test_what_is_written_over_many_laps_arrives(mount, pool, work, rng, cache_mib, blocks):
    image = make_image(os.path.join(pool, "web1.leaf"), DISK_BYTES)
    content = bytearray(DISK_BYTES)
    with mount("mode=writeback", f"cache={work}/cache", f"cache_size={cache_mib}M", "migrate_threshold=100",
               "migrate_idle_ms=60000") as live:
        with opened(live.file("web1.img")) as fd:
            for _ in range(LAPS * cache_mib * MIB // (blocks * BLOCK)):
                place = rng.randrange(DISK_BYTES // BLOCK - blocks + 1) * BLOCK
                data = rng.randbytes(blocks * BLOCK)
                content[place:place + len(data)] = data
                write_all(fd, data, place)
            run(program("leafctl"), "drain", live.file("web1.img"))
    assert_same(converted(image, work), bytes(content), "the image")
