import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from reptok.data.files import OPEN_FILES, PIECE, File


def written(path, size, seed=0):
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    path.write_bytes(data.tobytes())
    return data


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_many_files_are_read_through_few_descriptors(tmp_path):
    count = 3 * OPEN_FILES
    data = [written(tmp_path / str(number), 100, number) for number in range(count)]
    files = [File(tmp_path / str(number)) for number in range(count)]
    before = open_files()
    for _ in range(2):
        for file, expected in zip(files, data, strict=True):
            assert file.read(10, 20) == expected[10:30].tobytes()
    assert open_files() <= before + OPEN_FILES


def test_threads_that_share_more_files_than_stay_open_disturb_neither_each_other_nor_a_closed_one(tmp_path):
    data = [written(tmp_path / str(number), 5000, number) for number in range(2 * OPEN_FILES)]
    files = [File(tmp_path / str(number)) for number in range(len(data))]
    wrong = []

    def reader(seed):
        random = np.random.default_rng(seed)
        for _ in range(300):
            number, rows = random.integers(len(files)), random.permutation(50)[:7]
            array = np.empty((7, 100), np.uint8)
            files[number].read_rows(array, np.arange(7), rows * 100)
            if not np.array_equal(array, data[number].reshape(50, 100)[rows]):
                wrong.append(number)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_rows_of_any_type_go_to_their_places_and_the_others_stay(tmp_path):
    values = np.arange(24, dtype=np.float16).reshape(4, 2, 3)
    (tmp_path / "values").write_bytes(b"head" + values.tobytes())
    array = np.full((5, 2, 3), -1, np.float16)
    File(tmp_path / "values").read_rows(array, np.array([3, 0]), np.array([4 + 12, 4 + 36]))
    assert np.array_equal(array[[3, 0]], values[[1, 3]])
    assert (array[[1, 2, 4]] == -1).all()


def test_a_file_that_was_cut_is_named(tmp_path):
    written(tmp_path / "cut", 100)
    file = File(tmp_path / "cut")
    with pytest.raises(ValueError, match="cut ends within the 20 bytes at 90"):
        file.read(90, 20)
    with pytest.raises(ValueError, match="cut ends within the 60 bytes at 80"):
        file.read_rows(np.empty((1, 60), np.uint8), np.array([0]), np.array([80]))
    with pytest.raises(FileNotFoundError):
        File(tmp_path / "none").read(0, 1)


def test_what_lies_near_is_fetched_as_one_what_lies_far_is_not(tmp_path, monkeypatch):
    """The system is asked for pieces that it takes whole, in which every part lies and little else."""
    written(tmp_path / "large", 100)
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda number, offset, size, how: asked.append((offset, size)))
    near, far = 3000, 5 * PIECE
    offsets = np.array([far, near, 0, far + PIECE])
    File(tmp_path / "large").fetch(offsets, np.array([PIECE // 2, 500, 1000, PIECE]))
    assert asked == [(0, near + 500), (far, PIECE), (far + PIECE, PIECE)]


RESIDENT = """
import ctypes, mmap, os, sys, time
import numpy as np
from pathlib import Path
from reptok.data.files import File
path = Path(sys.argv[1])
size, page = path.stat().st_size, mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
def resident():
    how = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, *how) as m:
        place = ctypes.c_char.from_buffer(m)
        pages = (ctypes.c_ubyte * (size // page))()
        code = libc.mincore(ctypes.c_void_p(ctypes.addressof(place)), ctypes.c_size_t(size), pages)
        del place
        assert code == 0, os.strerror(ctypes.get_errno())
        return np.frombuffer(pages, np.uint8) & 1
with path.open("rb+") as file:
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
before = resident()
if before.mean() > 0.1:
    print("kept"); sys.exit()
offsets = np.array([2, 40, 70]) << 20
File(path).fetch(offsets, np.full(3, 3 << 20))
def there(found):
    return all(found[o // page : (o + (3 << 20)) // page].all() for o in offsets)
end = time.monotonic() + 20
while not there(resident()) and time.monotonic() < end:
    time.sleep(0.05)
found = resident()
print(there(found), round(float(found.mean()), 3))
"""


def test_what_was_fetched_lies_in_the_systems_cache_and_nothing_else(tmp_path):
    """As the kernel says itself, of a file that it had forgotten."""
    (tmp_path / "file").write_bytes(bytes(100 << 20))
    done = subprocess.run(
        [sys.executable, "-P", "-c", RESIDENT, str(tmp_path / "file")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if done.stdout.strip() == "kept":
        pytest.skip("this file system forgets nothing")
    whole, share = done.stdout.split()
    assert whole == "True" and 0.08 < float(share) < 0.2


def test_a_file_that_others_push_out_while_it_is_read_stays_open(tmp_path, monkeypatch):
    """As another thread does that reads from many more."""
    paths = [tmp_path / f"{number}" for number in range(OPEN_FILES + 1)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%05d" % number)
    plain, first = os.pread, File(paths[0])

    def pushed_out(descriptor, size, offset):
        monkeypatch.setattr(os, "pread", plain)
        others = [File(path).read(0, 5) for path in paths[1:]]
        assert others[-1] == b"%05d" % OPEN_FILES
        return plain(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pushed_out)
    assert first.read(0, 5) == b"00000"
