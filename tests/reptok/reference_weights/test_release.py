"""Checkpoints as foreign files: whole, wrong and hostile ones."""

import os
import pickle
import resource
import zipfile
from collections import OrderedDict

import pytest
import torch

from reptok.reference_weights import import_generator, import_release, import_tokenizer
from reptok.reference_weights.checkpoint import Inert, entry, read_checkpoint

DTYPES = {"torch.float32": torch.float32, "torch.bfloat16": torch.bfloat16, "torch.int64": torch.int64}


class Attack:
    """Unpickled naively, it creates a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = OrderedDict(
        a=base, b=base[1:, ::2], half=base.bfloat16(), empty=torch.empty(0), n=torch.tensor(3)
    )
    torch.save({"state_dict": tensors, "epoch": 3, "p": torch.nn.Parameter(base)}, tmp_path / "x.ckpt")
    read = read_checkpoint(tmp_path / "x.ckpt")
    assert read["epoch"] == 3 and torch.equal(read["p"], base)
    assert all(torch.equal(read["state_dict"][k], v) for k, v in tensors.items())
    assert read["state_dict"]["half"].dtype == torch.bfloat16


def test_a_hostile_pickle_executes_nothing(tmp_path):
    trap, file = tmp_path / "executed", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "hyper_parameters": Attack(trap)}, file)
    read = read_checkpoint(file)
    assert not trap.exists()
    assert isinstance(read["hyper_parameters"], Inert) and torch.equal(read["state_dict"]["w"], torch.ones(2))
    with pytest.raises(ValueError, match=r"does not fit|not expected"):
        import_release(file, tmp_path / "out")
    assert not trap.exists()


def test_a_pickle_that_reaches_outside_its_storage_is_refused(tmp_path):
    file = tmp_path / "x.ckpt"
    torch.save({"w": torch.zeros(4)}, file)
    out = tmp_path / "y.ckpt"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(out, "w") as target:
        for member in source.infolist():
            data = source.read(member)
            name = member.filename
            target.writestr(name, data[:8] if name.endswith("data/0") else data)
    with pytest.raises(ValueError, match="too short"):
        read_checkpoint(out)


@pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps({"state_dict": {}})])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="no readable PyTorch checkpoint"):
        read_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_leaf_of_untrusted_configuration():
    leaf, node = Inert(), Inert()
    leaf.__setstate__({"_val": 2.5})
    node.__setstate__({"_content": {"scale_factor": leaf}})
    assert entry({"params": node}, "params", "scale_factor") == 2.5
    for path in (("params", "none"), ("none",), ("params", "scale_factor", "more")):
        with pytest.raises(KeyError):
            entry({"params": node}, *path)


def self_held(kind):
    shell = Inert()
    if kind == "state":
        shell.__setstate__({"_content": shell})
    elif kind == "pair":
        other = Inert()
        shell.__setstate__({"_content": other})
        other.__setstate__({"_val": shell})
    else:
        layer = []
        for _ in range(100):
            layer = [layer, layer]  # 2^100 lists, if one counts them
        shell.append(layer)
    return shell


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["state", "pair", "lists"])
def test_objects_that_hold_themselves_are_not_followed(kind):
    with pytest.raises(KeyError):
        entry({"hyper_parameters": self_held(kind)}, "hyper_parameters", "scale_factor")


def archive(path, stream, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", stream)
    return path


HOSTILE = {
    "memo of 2^31 objects": b"\x80\x02}r\xff\xff\xff\x7f.",
    "memo by text": b"\x80\x02}p2147483647\n.",
    "number of kilobytes": b"\x80\x02}\x8b" + (4000).to_bytes(4, "little") + b"\x01" * 4000 + b"K\x01s.",
    "bytes that are not there": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "without end": b"\x80\x02}",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_claims_more_than_it_has_is_refused_unread(name, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"data\.pkl|no readable"):
        read_checkpoint(archive(tmp_path / "x.ckpt", HOSTILE[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


LAUGHS = b")" + b"2\x86" * 60
"""A tuple of twice the same tuple, sixty times over: its hash, its text and its comparison take for ever."""

HASHED = {
    "key": b"\x80\x04}" + LAUGHS + b"K\x01s.",
    "one of several keys": b"\x80\x04}(K\x01K\x01" + LAUGHS + b"K\x01u.",
    "key after a mark": b"\x80\x04(" + LAUGHS + b"K\x01d.",
    "member of a set": b"\x80\x04\x8f(" + LAUGHS + b"\x90.",
    "member of a frozen set": b"\x80\x04(" + LAUGHS + b"\x91.",
    "key of an ordered dictionary": b"\x80\x02ccollections\nOrderedDict\n(](" + LAUGHS + b"K\x01\x86etR.",
    "key of what is not trusted": b"\x80\x04cx\ny\n)R" + LAUGHS + b"K\x01s.",
    "name of a storage": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    + LAUGHS + b"X\x03\x00\x00\x00cpuK\x01tQ.",
    "frozen set of tuples in a key": b"\x80\x04}(" + LAUGHS + b"\x91K\x01s.",
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HASHED)
def test_keys_that_take_for_ever_to_hash_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"no readable|unknown kind"):
        read_checkpoint(archive(tmp_path / "x.ckpt", HASHED[name]))


def test_the_size_of_a_tensor_is_numbers(tmp_path):
    path = tmp_path / "x.ckpt"
    stream = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    stream += (
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00K\x05\x85J\xff\xff\xff\x7f\x86K\x01\x85\x89NtR."
    )
    archive(path, stream)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x/data/0", b"\0\0\0\0")
    with pytest.raises(ValueError, match="is no numbers"):
        read_checkpoint(path)


def test_a_compressed_pickle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compressed"):
        read_checkpoint(archive(tmp_path / "x.ckpt", bytes(2**20), zipfile.ZIP_DEFLATED))


def test_generator_keys_with_every_prefix_and_wrong_ones(parity):
    data = parity("mixer_cls_d48.safetensors")
    state = {k.removeprefix("sd."): v for k, v in data.items() if k.startswith("sd.")}
    wanted = import_generator(state).state_dict()
    compiled = {k.replace("mixer.", "mixer._orig_mod."): v for k, v in state.items()}
    live = {f"model.net.{k}": torch.zeros_like(v) for k, v in compiled.items()}
    averaged = {f"ema_model.net.{k}": v for k, v in compiled.items()}
    for variant in (compiled, averaged, live | averaged):
        imported = import_generator(variant).state_dict()
        assert all(torch.equal(imported[k], v) for k, v in wanted.items())
    with pytest.raises(ValueError, match=r"not expected stray"):
        import_generator({**state, "stray": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"shape of mixer\.1\.0\.fn\.3\.bias is \(4,\), expected \(3,\)"):
        import_generator({**state, "mixer.1.0.fn.3.bias": torch.zeros(4)})
    without = {k: v for k, v in state.items() if k != "mixer.2.1.norm.bias"}
    with pytest.raises(ValueError, match=r"missing mixer\.2\.1\.norm\.bias"):
        import_generator(without)


def random_tensors(keys):
    torch.manual_seed(0)
    made = {}
    for name, (shape, dtype) in keys.items():
        if dtype == "torch.int64":
            made[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            made[name] = torch.rand(shape, dtype=torch.float32).to(DTYPES[dtype])
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fixed geometric series", "ignore:.*more than cls_token")
def test_the_full_size_tokenizer_imports_whole(parity):
    state = random_tensors(parity("monolith_keys.json"))
    tokenizer = import_tokenizer(state)
    dead = 2 * 768  # new_reg
    assert sum(p.numel() for p in tokenizer.trainable_parameters()) == 571_310_016 - dead
    with pytest.raises(ValueError, match=r"not expected one\.too\.many"):
        import_tokenizer({**state, "one.too.many": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing encoder\.dino\.new_reg"):
        import_tokenizer({k: v for k, v in state.items() if k != "encoder.dino.new_reg"})
    with pytest.raises(ValueError, match=r"shape of time_in_proj\.weight is \(1024, 3\)"):
        import_tokenizer({**state, "time_in_proj.weight": torch.zeros(1024, 3)})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fixed geometric series", "ignore:.*more than cls_token")
@pytest.mark.filterwarnings("ignore:.*is not the tokenizer's encoder")
def test_the_full_size_release_imports_whole(parity, tmp_path):
    state = random_tensors(parity("lightning_keys.json"))
    parameters = {"first_stage_cfg": {"params": {"scale_factor": 2.5}}}
    torch.save({"state_dict": state, "hyper_parameters": parameters}, tmp_path / "release.ckpt")
    del state
    pipe = import_release(tmp_path / "release.ckpt", tmp_path / "model")
    assert pipe.generator.config.num_classes == 1000 and pipe.generator.config.sequence_length == 3
    assert float(pipe.generator.stats.std[0]) == 2.5
    assert (tmp_path / "model/tokenizer/model.safetensors").is_file()
