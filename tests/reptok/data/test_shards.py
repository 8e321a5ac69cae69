"""Tar shards and packed blocks: deterministic bytes, strict reading, exact contents."""

import io
import tarfile

import numpy as np
import pytest
import webdataset as wds

from reptok.data.blocks import BlockWriter, index_blocks, iterate_blocks, pack_keys, read_block, unpack_keys
from reptok.data.keys import split_of
from reptok.data.shards import Sample, read_samples, write_samples
from reptok.data.tar import TarWriter, index_members, iterate_members

SAMPLES = [
    Sample(f"{i:012d}", bytes(range(i % 256)) * i, f"ein Bär № {i}", {"label": i, "subject": "bear"})
    for i in range(12)
]


def dataset_tar(samples=SAMPLES) -> bytes:
    buffer = io.BytesIO()
    write_samples(buffer, samples)
    return buffer.getvalue()


def untrusted_tar(*members: tarfile.TarInfo) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return io.BytesIO(buffer.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 1) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size if kind == tarfile.REGTYPE else 0, "/etc/passwd"
    return info


# ---- dataset tars


def test_samples_come_back_as_they_went_in(tmp_path):
    path = tmp_path / "train-00000.tar"
    path.write_bytes(dataset_tar())
    assert list(read_samples(path)) == SAMPLES
    assert list(read_samples(io.BytesIO(dataset_tar()))) == SAMPLES


def test_same_samples_give_same_bytes_without_clock_or_owner():
    assert dataset_tar() == dataset_tar()
    with tarfile.open(fileobj=io.BytesIO(dataset_tar())) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_webdataset_reads_the_same_keys_and_bytes(tmp_path):
    path = tmp_path / "train-00000.tar"
    path.write_bytes(dataset_tar())
    samples = list(wds.WebDataset(str(path), shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] == [s.key for s in SAMPLES]
    assert [s["jpg"] for s in samples] == [s.jpg for s in SAMPLES]
    assert [s["txt"].decode() for s in samples] == [s.caption for s in SAMPLES]


def test_empty_shard_is_a_valid_tar():
    assert list(read_samples(io.BytesIO(dataset_tar([])))) == []
    with tarfile.open(fileobj=io.BytesIO(dataset_tar([]))) as tar:
        assert tar.getnames() == []


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"]])
def test_keys_must_ascend(keys):
    with pytest.raises(ValueError, match="unique, ascending"):
        dataset_tar([Sample(key, b"") for key in keys])


@pytest.mark.parametrize("key", ["../../x", "/etc/x", "a/b", "a.b", "", "ключ", "a b"])
def test_forbidden_keys_are_not_written(key):
    with pytest.raises(ValueError, match=r"key|refused"):
        dataset_tar([Sample(key, b"")])


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/x.jpg", "..jpg", "x", "x.jpg.exe", "x." + "y" * 20]
)
def test_forbidden_member_names_are_refused(name):
    with pytest.raises(ValueError, match="refused"):
        list(read_samples(untrusted_tar(member(name))))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_folders_and_devices_are_refused(kind):
    with pytest.raises(ValueError, match="not a regular file"):
        list(read_samples(untrusted_tar(member("x.jpg", kind))))


@pytest.mark.parametrize("extension", ["pickle", "pyd", "png", "npy"])
def test_extensions_that_we_do_not_write_are_refused(extension):
    with pytest.raises(ValueError, match="unexpected member"):
        list(read_samples(untrusted_tar(member(f"x.{extension}"))))


def test_doubled_keys_are_refused_adjacent_or_not():
    one, two = [[member(f"{key}.{ext}", size=0) for ext in ("jpg", "txt")] for key in "ab"]
    json_members = [member("a.json", size=2), member("b.json", size=2)]
    with pytest.raises(ValueError, match=r"unexpected member 'a\.jpg'"):
        list(read_samples(untrusted_tar(*one, *one)))
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    for key in "aba":
        for name, data in ((f"{key}.jpg", b""), (f"{key}.txt", b""), (f"{key}.json", b"{}")):
            tar.add(name, data)
    tar.close()
    with pytest.raises(ValueError, match="key 'a' comes after 'b'"):
        list(read_samples(io.BytesIO(buffer.getvalue())))
    with pytest.raises(ValueError, match="undecodable caption or JSON"):
        list(read_samples(untrusted_tar(*one, json_members[0], *two, json_members[1])))


def test_incomplete_sample_is_refused():
    with pytest.raises(ValueError, match="has no txt, json member"):
        list(read_samples(untrusted_tar(member("x.jpg"))))


def test_every_truncation_is_noticed():
    data = dataset_tar(SAMPLES[:2])
    for length in range(0, len(data), 256):
        with pytest.raises(ValueError, match="truncated"):
            list(read_samples(io.BytesIO(data[:length])))


def test_damaged_header_is_noticed():
    data = bytearray(dataset_tar())
    data[3] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        list(read_samples(io.BytesIO(bytes(data))))


def test_index_gives_the_offsets_of_the_bytes():
    data = dataset_tar()
    streamed = list(iterate_members(io.BytesIO(data)))
    assert index_members(io.BytesIO(data)) == [entry for entry, _ in streamed]
    for entry, content in streamed:
        assert data[entry.offset : entry.offset + entry.size] == content


def test_split_depends_on_the_key_alone_and_has_the_asked_share():
    keys = [f"{i:012d}" for i in range(4000)]
    val = {key for key in keys if split_of(key, 0.1) == "val"}
    assert 0.08 < len(val) / len(keys) < 0.12
    assert val <= {key for key in keys if split_of(key, 0.2) == "val"}
    assert all(split_of(key, 0.0) == "train" for key in keys)


# ---- packed blocks


def packed(groups, samples_per_block=100) -> bytes:
    generator = np.random.default_rng(0)
    moments = generator.standard_normal((250, 2, 8, 2, 2)).astype(np.float16)
    token = generator.standard_normal((250, 2, 1, 6)).astype(np.float32)
    buffer = io.BytesIO()
    writer = BlockWriter(buffer, samples_per_block)
    start = 0
    for rows in groups:
        stop = start + rows
        keys = [f"{i:012d}" for i in range(start, stop)]
        writer.add(keys, {"moments": moments[start:stop], "token": token[start:stop]})
        start = stop
    writer.close()
    return buffer.getvalue()


def test_block_bytes_do_not_depend_on_how_samples_arrive():
    reference = packed([250])
    assert packed([1] * 250) == reference
    assert packed([99, 1, 101, 49]) == reference


def test_blocks_hold_the_samples_in_order():
    blocks = list(iterate_blocks(io.BytesIO(packed([32] * 7 + [26]))))
    assert [len(block["keys"]) for block in blocks] == [100, 100, 50]
    assert [key for block in blocks for key in unpack_keys(block["keys"])] == [
        f"{i:012d}" for i in range(250)
    ]
    generator = np.random.default_rng(0)
    moments = generator.standard_normal((250, 2, 8, 2, 2)).astype(np.float16)
    assert np.array_equal(np.concatenate([block["moments"] for block in blocks]), moments)
    assert blocks[0]["moments"].dtype == np.float16
    assert blocks[0]["token"].dtype == np.float32


def test_any_block_can_be_read_by_itself(tmp_path):
    path = tmp_path / "train-00000.tar"
    path.write_bytes(packed([250]))
    entries = index_blocks(path)
    assert [entry.rows for entry in entries] == [100, 100, 50]
    for entry, streamed in zip(reversed(entries), reversed(list(iterate_blocks(path))), strict=True):
        alone = read_block(path, entry)
        assert alone.keys() == streamed.keys()
        assert all(np.array_equal(alone[name], streamed[name]) for name in alone)


def test_storage_overhead_is_below_three_percent():
    rows, buffer = 2000, io.BytesIO()
    writer = BlockWriter(buffer)
    payload = {
        "moments": np.zeros((rows, 1, 4, 32, 32), np.float16),
        "token": np.zeros((rows, 1, 384), np.float32),
    }
    writer.add([f"{i:012d}" for i in range(rows)], payload)
    writer.close()
    assert len(buffer.getvalue()) / sum(array.nbytes for array in payload.values()) < 1.02


def test_no_samples_give_an_empty_valid_shard():
    assert list(iterate_blocks(io.BytesIO(packed([])))) == []
    assert index_blocks(io.BytesIO(packed([]))) == []


def test_damaged_block_is_named():
    data = bytearray(packed([250]))
    data[512 + 8] = ord("[")
    with pytest.raises(ValueError, match=r"00000\.safetensors is damaged"):
        list(iterate_blocks(io.BytesIO(bytes(data))))


def test_dataset_tar_is_no_block_shard():
    with pytest.raises(ValueError, match="not a block"):
        index_blocks(io.BytesIO(dataset_tar()))


def test_arrays_must_go_with_the_keys():
    with pytest.raises(ValueError, match="3 rows does not go with 2 keys"):
        BlockWriter(io.BytesIO()).add(["a", "b"], {"x": np.zeros(3)})


def test_keys_of_different_lengths_survive_packing():
    keys = ["a", "000000000001", "bb-2"]
    assert pack_keys(keys).shape == (3, 12)
    assert unpack_keys(pack_keys(keys)) == keys
    assert pack_keys([]).shape[0] == 0
