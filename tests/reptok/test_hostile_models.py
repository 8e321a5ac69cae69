"""Model folders of strangers: loaded as what they are or refused in a sentence; nothing runs."""

import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reptok.autoencoder import Autoencoder
from reptok.captioner import InternVLCaptioner, ask, load_processor
from reptok.chat_template import render
from reptok.configs import AutoencoderConfig, TextEncoderConfig, VisionLanguageConfig
from reptok.encoder.vit import load_vit
from reptok.folder import inside
from reptok.pretrained import load_pretrained
from reptok.text_encoder import TextEncoder

ZOO = Path(__file__).parents[2] / "zoo"
SECONDS, WAITED = 60, 1200
"""Of the processor, and by the clock, which also counts what else a machine does."""


def load_encoder(folder):
    load_vit(folder, 64)


def load_autoencoder(folder):
    Autoencoder(AutoencoderConfig(path=str(folder)))


def load_text_encoder(folder):
    TextEncoder(TextEncoderConfig(path=str(folder)))(["a photo of a cat", ""])


def load_captioner(folder):
    config = VisionLanguageConfig(path=str(folder), max_new_tokens=3)
    InternVLCaptioner(config)([np.zeros((64, 64, 3), np.uint8)], [0])


LOADERS = {
    "encoder": load_encoder,
    "autoencoder": load_autoencoder,
    "text_encoder": load_text_encoder,
    "captioner": load_captioner,
    "reptok": load_pretrained,
}


@pytest.fixture
def copied(tmp_path):
    def copy(kind):
        return Path(shutil.copytree(ZOO / kind, tmp_path / kind, ignore=shutil.ignore_patterns("pictures")))

    return copy


def change(file, **values):
    config = json.loads(file.read_text())
    for key, value in values.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    file.write_text(json.dumps(config))


CODE = "import pathlib; pathlib.Path({!r}).touch()\nclass Evil: pass\n"


@pytest.mark.parametrize("kind", ["text_encoder", "captioner"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_beside_the_weights_neither_runs_nor_prompts(kind, file, copied, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = copied(kind)
    (folder / "evil.py").write_text(CODE.format(str(tmp_path / "ran")))
    names = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoProcessor")}
    change(folder / file, auto_map=names | {"AutoTokenizer": ["evil.Evil", None]}, model_type="evil")
    with pytest.raises(ValueError, match="auto_map"):
        LOADERS[kind](folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_args": {"checkpoint_path": "evil.pt"}}, "checkpoint_path"),
        ({"model_args": {"pretrained": True}}, "not understood"),
        ({"model_args": {"embed_layer": "os.system"}}, "not understood"),
        ({"architecture": "hf-hub:timm/vit_small_patch16_224"}, "no vision transformer of timm"),
        ({"architecture": "local-dir:/tmp/x"}, "no vision transformer of timm"),
        ({"architecture": "resnet18"}, "no vision transformer of timm"),
        ({"architecture": ["vit_small_patch16_224"]}, "no vision transformer of timm"),
        ({"model_args": {"depth": 10**9}}, "depth"),
        ({"model_args": {"embed_dim": 12288}}, "shape of"),
        ({"model_args": {"depth": 250}}, "missing"),
        ({"pretrained_cfg": {"std": [0, 1, 1]}}, "std above 0"),
        ({"pretrained_cfg": {"mean": [float("nan")] * 3}}, "three numbers"),
        ({"pretrained_cfg": {"mean": [10**400] * 3}}, "more than any network"),
        ({"pretrained_cfg": [1]}, "JSON objects"),
    ],
)
def test_arguments_of_an_encoder(values, message, copied, tmp_path):
    folder = copied("encoder")
    change(folder / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        load_vit(folder, 64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
        ({"_class_name": "AutoencoderKLFlux2"}, "AutoencoderKLFlux2"),
        ({"latents_mean": [0.0] * 4}, "each channel"),
        ({"batch_norm_eps": 1e-4}, "batch_norm_eps"),
        ({"scaling_factor": 0}, "scaling_factor"),
        ({"block_out_channels": [8192] * 4}, "numbers"),
        ({"layers_per_block": 2}, "missing"),
    ],
)
def test_a_vae_of_another_class_or_with_parts_of_its_own_is_refused(values, message, copied):
    folder = copied("autoencoder")
    change(folder / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        load_autoencoder(folder)


FAMILIES = {
    "encoder": "blocks.0.norm1.weight",
    "autoencoder": "decoder.conv_in.weight",
    "text_encoder": None,
    "captioner": None,
}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("change_of", ["missing", "left over", "another shape"])
def test_weights_that_do_not_fit_are_refused_in_every_family(kind, change_of, copied):
    folder = copied(kind)
    (file,) = folder.glob("*.safetensors")
    state = load_file(file)
    key = FAMILIES[kind] or next(key for key in state if "norm" in key and key.endswith("weight"))
    if change_of == "left over":
        state["bn.running_mean"] = torch.zeros(3)
    elif change_of == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(3, 5)
    file.unlink()
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ValueError):
        LOADERS[kind](folder)


@pytest.mark.parametrize("kind", [*FAMILIES, "reptok/tokenizer", "reptok_class/generator"])
@pytest.mark.parametrize(
    ("number", "dtype"),
    [(float("nan"), None), (float("inf"), torch.float32), (float("-inf"), torch.float16),
     (float("nan"), torch.bfloat16)],
)  # fmt: skip
def test_weights_that_are_not_finite_are_refused_by_name_in_every_family(kind, number, dtype, copied):
    root = copied(kind.split("/")[0])
    folder = root.parent / kind
    (file,) = folder.glob("*.safetensors")
    state = load_file(file)
    key = [key for key in state if state[key].is_floating_point()][-1]
    state[key] = state[key].to(dtype) if dtype else state[key]
    state[key].view(-1)[-1] = number
    file.unlink()
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"not finite in (model\.)?{re.escape(key)}"):
        LOADERS[kind.split("/")[0].removesuffix("_class")](root)


def test_a_vae_with_the_attention_names_of_old_is_the_same_network(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    AutoencoderKL(**blocks, block_out_channels=[8, 8], norm_num_groups=4).save_pretrained(tmp_path)
    wanted = Autoencoder(AutoencoderConfig(path=str(tmp_path))).digest
    (file,) = tmp_path.glob("*.safetensors")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in load_file(file).items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.")
        state[key] = value
    assert any("proj_attn" in key for key in state)
    save_file(state, file, {"format": "pt"})
    assert Autoencoder(AutoencoderConfig(path=str(tmp_path))).digest == wanted


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("tokenizer/config.json", {"config": {"encoder": {"path": "/etc"}}}, "encoder"),
        ("tokenizer/config.json", {"config": {"autoencoder": {"path": "../../x"}}}, "autoencoder"),
        ("tokenizer/config.json", {"config": {"autoencoder": {"path": "owner/model"}}}, "autoencoder"),
        ("text_encoder/reptok_text_encoder.json", {"path": "openai/clip-vit-large-patch14"}, "not followed"),
        ("text_encoder/reptok_text_encoder.json", {"path": "/etc"}, "not followed"),
        ("text_encoder/tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "not beside it"),
        ("generator/config.json", {"config": {"depth": 10**9}}, "depth"),
        ("generator/config.json", {"config": {"dim": 2**16}}, "shape"),
        ("generator/config.json", {"config": {"dim": "x"}}, "dim must be int"),
        ("generator/config.json", {"config": {"surplus": 1}}, "surplus"),
        ("model.json", {"class_names": [1]}, "lists of texts"),
        ("model.json", {"parts": None}, "lists of texts"),
        ("model.json", {"format": 99}, "has format 99; this version reads format 1"),
    ],
)
def test_a_published_folder_leads_nowhere(file, values, message, copied, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", pytest.fail)
    folder = copied("reptok")
    config = json.loads((folder / file).read_text())

    def merge(own, new):
        for key, value in new.items():
            own[key] = merge(own.get(key) or {}, value) if isinstance(value, dict) else value
        return own

    (folder / file).write_text(json.dumps(merge(config, values)))
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize(
    "part", ["tokenizer/encoder/model.safetensors", "tokenizer/config.json", "generator"]
)
def test_links_out_of_a_published_folder_are_refused(part, copied, tmp_path):
    folder = copied("reptok")
    (folder / part).rename(tmp_path / "elsewhere")
    (folder / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leaves its folder"):
        load_pretrained(folder)


def test_the_hubs_cache_is_one_folder(tmp_path):
    (tmp_path / "m" / "blobs").mkdir(parents=True)
    (tmp_path / "m" / "blobs" / "x").write_text("{}")
    (tmp_path / "m" / "snapshots" / "c").mkdir(parents=True)
    (tmp_path / "m" / "snapshots" / "c" / "config.json").symlink_to("../../blobs/x")
    (tmp_path / "m" / "snapshots" / "c" / "other.json").symlink_to("../../../m2")
    assert inside(tmp_path / "m" / "snapshots" / "c", "config.json").read_text() == "{}"
    with pytest.raises(ValueError, match="leaves its folder"):
        inside(tmp_path / "m" / "snapshots" / "c", "other.json")


TEMPLATE = (ZOO / "captioner" / "chat_template.jinja").read_text()


BOM = b"\xef\xbb\xbf"
WIDE = b'{"x": [' + b"1," * 200_000 + b"1]}"


@pytest.mark.parametrize("data", [BOM + b"{}", "{}".encode("utf-16"), "{}".encode("utf-32"), WIDE])
@pytest.mark.parametrize("kind", ["text_encoder", "captioner", "encoder", "autoencoder"])
def test_a_configuration_that_libraries_would_read_otherwise_or_for_minutes_is_refused(kind, data, copied):
    folder = copied(kind)
    (folder / "config.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"config.json (is not valid JSON|has more than)"):
        LOADERS[kind](folder)


def test_folders_in_folders_without_end_are_refused(copied):
    folder = copied("text_encoder")
    place = folder
    for _ in range(200):
        place = place / "d"
        place.mkdir()
    with pytest.raises(ValueError, match="16 folders in each other"):
        load_text_encoder(folder)


@pytest.mark.parametrize("key", ["_experts_implementation", "_attn_implementation_internal"])
def test_kernels_of_the_hub_are_not_named(key, copied):
    folder = copied("text_encoder")
    change(folder / "config.json", **{key: "someone/kernels:v1"})
    with pytest.raises(ValueError, match="someone/kernels"):
        load_text_encoder(folder)


@pytest.mark.parametrize("length", ["32", [32]])
def test_a_tokenizer_that_fails_only_when_it_is_used_is_refused_while_it_loads(length, copied):
    folder = copied("text_encoder")
    change(folder / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ValueError, match="cannot be loaded"):
        TextEncoder(TextEncoderConfig(path=str(folder)))


def test_a_template_is_rendered_as_transformers_renders_it():
    processor = load_processor(ZOO / "captioner")
    content = [{"type": "image"}, {"type": "text", "text": "what is <b>this</b>?"}]
    wanted = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert ask(processor, "what is <b>this</b>?") == wanted


@pytest.mark.parametrize(
    "template",
    ["{{ 'a' * 10**10 }}", "{{ 'x'|center(10**9) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{%",
     "{{ raise_exception('a' * 10**6) }}", "{{ ''.__class__.__mro__ }}{{ x.y }}", "a" * 2**17],
)  # fmt: skip
def test_a_template_that_fails_or_grows_is_refused(template):
    with pytest.raises(ValueError, match="chat template"):
        render(template, [])


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("body", ["", "{{ 2 ** (10 ** 9) }}"])
def test_a_template_that_never_ends_is_ended(body):
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}" + body + "{% endfor %}{% endfor %}"
    with pytest.raises(ValueError, match="more than"):
        render(loops, [])


def fuzz(kind, seeds, tmp_path, load_fixture):
    nasty = load_fixture("nasty_models")
    torch.set_num_threads(1)
    refused = 0

    def too_long(number, _):
        used = f"{SECONDS} s of work" if number == signal.SIGPROF else f"{WAITED} s of waiting"
        raise TimeoutError(f"{kind} seed {seed}: more than {used}")  # an OSError, so it is looked for below

    LOADERS[kind](ZOO / kind)  # whole and sound; its libraries are imported outside of a mutant's time
    before = [signal.signal(number, too_long) for number in (signal.SIGALRM, signal.SIGPROF)]
    try:
        for seed in seeds:
            folder = tmp_path / f"{kind}{seed}"
            nasty.mutate(ZOO / kind, folder, random.Random(f"{kind} {seed}"))
            signal.alarm(WAITED)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                LOADERS[kind](folder)
            except TimeoutError:
                raise
            except (ValueError, OSError):
                refused += 1
            except BaseException as error:
                error.add_note(f"{kind} seed {seed}")
                raise
            finally:
                signal.alarm(0)
                signal.setitimer(signal.ITIMER_PROF, 0)
                shutil.rmtree(folder)
    finally:
        signal.signal(signal.SIGALRM, before[0])
        signal.signal(signal.SIGPROF, before[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{kind}: seeds {seeds}, {refused} of {len(seeds)} refused, peak {peak:.1f} GB")
    assert peak < 4


@pytest.mark.parametrize("kind", LOADERS)
def test_some_mutated_folders(kind, tmp_path, load_fixture):
    fuzz(kind, range(3 if kind in ("reptok", "captioner") else 12), tmp_path, load_fixture)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", LOADERS)
def test_two_thousand_mutated_folders(kind, tmp_path, load_fixture):
    fuzz(kind, range(100, 500), tmp_path, load_fixture)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_mutated_folders_by_the_command(tmp_path, load_fixture):
    nasty = load_fixture("nasty_models")
    for seed in range(30):
        folder = tmp_path / str(seed)
        nasty.mutate(ZOO / "reptok", folder, random.Random(f"command {seed}"))
        command = [sys.executable, "-m", "reptok.cli", "info", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        told = f"seed {seed}: {done.returncode} {done.stderr[-2000:]}"
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr, told
        assert "\x1b" not in done.stdout + done.stderr, told
        if done.returncode:
            assert done.stderr.splitlines()[-1].startswith("reptok: "), told


def test_names_of_classes_do_not_steer_the_terminal(copied, capsys, monkeypatch):
    from reptok import cli

    folder = copied("reptok_class")
    change(folder / "model.json", class_names=["\x1b[2J\x07red", *["\u202ex"] * 17])
    monkeypatch.setattr(sys, "argv", ["reptok", "info", str(folder)])
    with suppress(SystemExit):
        cli.main()
    told = capsys.readouterr().out
    assert "\\x1b[2J\\x07red" in told and "\x1b" not in told and "\u202e" not in told


def test_a_bad_folder_is_a_sentence_and_exit_status_2(copied, capsys, monkeypatch):
    from reptok import cli

    folder = copied("reptok")
    (folder / "model.json").write_text('{"parts": 1, "\x1b[2J')
    monkeypatch.setattr(sys, "argv", ["reptok", "info", str(folder)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("reptok: ")
