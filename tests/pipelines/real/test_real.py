"""`python -m pipelines real` on tiny folders of the same formats; oracles are the publishers' libraries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.__main__ import main
from pipelines.real import command
from pipelines.real.settings import Settings, parse
from pipelines.real.stated import STATED, judge, stated_values

ZOO = Path(__file__).parents[3] / "zoo"
SIZES = [
    "device=cpu", "encoder_size=32", "image_size=32", "steps=40", "batch_size=16", "lr=0.003",
    "decoder_width=32", "decoder_depth=1", "decoder_heads=2",
]  # fmt: skip
CHECKS = [
    "dinov2", "dinov3", "mae_reference", "mae", "clip", "clip_encoder", "clip_text", "text_encoder",
    "vae_encoder", "vae", "internvl", "internvl_caption", "release", "training",
]  # fmt: skip


@pytest.fixture(scope="module")
def publishers(tmp_path_factory, load_fixture, tiny_models, small_clip):
    """The words that point every network at a tiny folder, and the publishers' values of them."""
    module = load_fixture("publishers")
    return module.write_all(tmp_path_factory.mktemp("publishers"), tiny_models, small_clip[1], ZOO)


def run(out, publishers, *words, **changed):
    """Run the command; returns its status, what it wrote as JSON by check, and the page."""
    places, values = publishers
    stated = out.parent / f"{out.name}.stated.json"
    stated.write_text(json.dumps({**values, **changed}))
    own = {word.partition("=")[0] for word in words}
    kept = [word for word in (*SIZES, *places) if word.partition("=")[0] not in own]
    status = main(["real", f"out={out}", f"stated={stated}", *kept, *words])
    found = json.loads((out / "real.json").read_text())
    return status, {result["name"]: result for result in found["results"]}, (out / "real.html").read_text()


@pytest.fixture(scope="module")
def whole(publishers, tmp_path_factory):
    """Everything, undisturbed."""
    return run(tmp_path_factory.mktemp("real") / "whole", publishers)


@pytest.mark.slow
def test_every_network_gives_its_publishers_values(whole, publishers):
    status, found, _ = whole
    said = {name: (result["outcome"], result["note"], result["difference"]) for name, result in found.items()}
    assert status == 0 and list(found) == CHECKS, said
    assert {result["outcome"] for result in found.values()} == {"passed"}, said
    for name in ("dinov2", "dinov3", "mae_reference", "clip_text", "internvl"):
        assert found[name]["ours"] == pytest.approx(publishers[1][name], abs=2e-4), name
    for name in ("mae", "clip_encoder", "text_encoder"):
        assert found[name]["difference"] < 1e-5 and found[name]["compared"] >= 16, name
    assert found["clip"]["ours"] == pytest.approx(publishers[1]["clip"], abs=2e-3)
    assert found["vae"]["ours"] == pytest.approx(publishers[1]["vae"], abs=1e-3)
    assert found["release"]["ours"] == pytest.approx(publishers[1]["release"], abs=1e-3)
    assert found["internvl_caption"]["ours"] == publishers[1]["internvl_caption"] != ""
    assert found["training"]["ours"][0] < 0.9 and re.search(r"[\d.]+ images/s", found["training"]["note"])
    assert all(result["seconds"] > 0 for result in found.values())


@pytest.mark.slow
def test_our_posterior_is_that_of_diffusers(whole, tiny_models, publishers):
    from diffusers import AutoencoderKL

    noise = next(word for word in publishers[0] if word.startswith("noise=")).partition("=")[2]
    vae = AutoencoderKL.from_pretrained(tiny_models / "autoencoder")
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(np.load(noise))[:1]).latent_dist
    found = whole[1]["vae_encoder"]
    assert found["ours"] == pytest.approx(posterior.mean[0, -1, -3:, -3:].flatten().tolist(), abs=1e-5)
    allowed = [0.003 + 4 * deviation for deviation in posterior.std[0, -1, -3:, -3:].flatten().tolist()]
    assert found["tolerance"] == pytest.approx(allowed, abs=1e-5)


@pytest.mark.slow
def test_the_page_holds_every_check_and_its_pictures(whole):
    _, found, page = whole
    for result in found.values():
        assert f'<tr id="{result["name"]}">' in page and page.count(result["place"]) > 0
    expected = {name: len(result["pictures"]) for name, result in found.items() if result["pictures"]}
    assert expected == {"vae": 1, "release": 2, "training": 2}
    assert page.count('src="data:image/webp;base64,') == 5 and '<img src="http' not in page
    assert f"{found['dinov2']['ours'][0]:.4f}" in page and "Not finished" not in page


def test_a_value_that_differs_is_told_and_is_no_success(publishers, tmp_path, capsys):
    wrong = [publishers[1]["dinov2"][0] + 0.2, *publishers[1]["dinov2"][1:]]
    status, found, page = run(tmp_path / "out", publishers, "only=dinov2,clip", dinov2=wrong)
    assert status == 1 and list(found) == ["dinov2", "clip"]
    assert found["dinov2"]["outcome"] == "differs" and found["clip"]["outcome"] == "passed"
    assert found["dinov2"]["difference"] == pytest.approx(0.2, abs=1e-3)
    assert "differs; ours" in capsys.readouterr().out and 'class="bad">differs' in page


def test_weights_that_were_changed_are_noticed(publishers, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "dinov2"
    folder.mkdir()
    source = Path(next(word for word in publishers[0] if word.startswith("dinov2=")).partition("=")[2])
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    state = load_file(source / "model.safetensors")
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flip(1)  # blue for red
    save_file(state, folder / "model.safetensors")
    status, found, _ = run(tmp_path / "out", publishers, "only=dinov2", f"dinov2={folder}")
    assert status == 1 and found["dinov2"]["outcome"] == "differs", found["dinov2"]["difference"]


def test_what_cannot_be_loaded_ends_nothing_else(publishers, tmp_path):
    broken = tmp_path / "release.ckpt"
    broken.write_bytes(b"no checkpoint")
    status, found, page = run(
        tmp_path / "out", publishers, "only=dinov2,vae,internvl,clip_text,release,dinov3",
        f"vae={tmp_path}/none/at/all", f"captioner={tmp_path}", f"release={broken}", "noise=/none.npy",
        f"dinov2={tmp_path}/nowhere",
    )  # fmt: skip
    assert status == 1
    outcomes = {name: result["outcome"] for name, result in found.items()}
    lost = dict.fromkeys(
        ("dinov2", "vae_encoder", "vae", "internvl", "internvl_caption", "release"), "could not be loaded"
    )
    assert outcomes == {**lost, "dinov3": "passed", "clip_text": "passed"}
    assert "no readable PyTorch checkpoint" in found["release"]["note"] and found["release"]["note"] in page
    assert "none/at/all" in found["vae"]["note"] and "\n" not in found["vae"]["note"]


def test_without_a_picture_what_needs_none_goes_on(publishers, tmp_path):
    words = ("only=dinov2,clip_text,vae", f"picture={tmp_path}/none.jpg")
    status, found, _ = run(tmp_path / "out", publishers, *words)
    assert status == 1 and found["clip_text"]["outcome"] == found["vae_encoder"]["outcome"] == "passed"
    assert found["dinov2"]["outcome"] == found["vae"]["outcome"] == "could not be loaded"
    assert found["dinov2"]["note"].endswith("fetch it elsewhere and give picture=FILE")


def test_without_a_release_nothing_is_missing(publishers, tmp_path):
    status, found, _ = run(tmp_path / "out", publishers, "only=release", "release=")
    assert (
        status == 0
        and found["release"]["outcome"] == "skipped"
        and "release=FILE" in found["release"]["note"]
    )


def test_a_result_is_written_before_the_next_one_begins(publishers, tmp_path, monkeypatch):
    from pipelines.real import encoders

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoders, "whole_mae", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", publishers, "only=dinov2,mae")
    found = json.loads((tmp_path / "out/real.json").read_text())
    assert [result["name"] for result in found["results"]] == ["dinov2"] and not found["finished"]
    assert "Not finished: mae to come" in (tmp_path / "out/real.html").read_text()


def test_wrong_use_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["real", "only=dinov2"]) == 2  # no GPU here
    assert "device=cpu runs it without one" in capsys.readouterr().err
    assert main(["real", "device=cpu", "only=dinov4"]) == 2
    assert "there is no check dinov4; there are: dinov2," in capsys.readouterr().err
    for word, said in {
        "pictures=x": "did you mean picture=?", "steps=many": "steps is a number", "device=tpu": "one of",
        "steps=0": "must be above 0", "out=": "out= names",
    }.items():  # fmt: skip
        assert main(["real", word]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_values_are_judged_number_by_number():
    assert judge((1.0, 2.0), (1.05, 2.0), (0.1,)) == (pytest.approx(0.05), True)
    assert judge((1.0, 2.0), (1.0, 2.3), (0.2,))[1] is False
    assert (
        judge((30.0, 0.7), (24.0, 0.71), (7.4, 0.26))[1]
        and not judge((24.0, 0.2), (24.5, 0.71), (7.4, 0.26))[1]
    )
    assert judge((float("nan"),), (0.0,), (1.0,))[1] is False
    assert judge((1.0,), (1.0, 2.0), (9.0,)) == (None, False)
    assert judge("two cats", "two cats", (0.0,)) == (None, True) and not judge("a dog", "two cats", (0.0,))[1]


def test_every_row_has_a_stated_value_with_its_source(tmp_path):
    rows = [name for check in command.all_checks(Settings()) for name in check.rows]
    assert rows == CHECKS == list(STATED)
    assert all(value.source and value.of for value in STATED.values())
    assert STATED["clip"].values == (24.5701, 19.3049)
    (tmp_path / "own.json").write_text('{"clip": [1, 2]}')
    own = stated_values(str(tmp_path / "own.json"))
    assert own["clip"].values == (1.0, 2.0) and own["dinov2"] is STATED["dinov2"]
    for text in ('{"klip": [1]}', '{"clip": [true]}', "[]"):
        (tmp_path / "own.json").write_text(text)
        with pytest.raises(ValueError, match=r"own\.json"):
            stated_values(str(tmp_path / "own.json"))


def test_settings_are_typed():
    settings = parse(["steps=20", "lr=0.001", "vae=somewhere"])
    assert (settings.steps, settings.lr, settings.vae, settings.device) == (20, 0.001, "somewhere", "cuda")
