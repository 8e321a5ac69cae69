"""`reptok push` against a hub of our own on loopback, with the hub's own client."""

import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from reptok import cli
from reptok.generator import GeneratorConfig, TokenGenerator
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained, save_pretrained
from tests.fixtures.hub_server import TOKEN, hub
from tests.fixtures.tiny_tokenizer import tiny_tokenizer

NAME = "somebody/model"


@pytest.fixture
def model(tiny_models, tmp_path):
    """A published folder: a model, its card, a picture, what the workflow left, and what is nobody's."""
    torch.manual_seed(0)
    config = GeneratorConfig(token_dim=32, dim=16, depth=1, condition="class", num_classes=2)
    pipe = RepTokPipeline(tiny_tokenizer(tiny_models), TokenGenerator(config), class_names=["cat", "dog"])
    folder = tmp_path / "model"
    save_pretrained(pipe, folder)
    (folder / "pictures").mkdir()
    (folder / "pictures/a.webp").write_bytes(bytes(range(256)))
    (folder / "manifest.json").write_text("{}")
    (folder / ".env").write_text("PASSWORD=x")
    (folder / "tokenizer/.notes").write_text("private")
    return folder


@pytest.fixture
def served():
    with hub() as opened:
        yield opened


def reptok(served, home, *arguments, token=TOKEN):
    """The command in a process of its own, which knows no hub but ours and no login but the given one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": served.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-P", "-m", "reptok.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_what_was_pushed_is_loaded_from_the_hub_as_it_was(model, served, tmp_path):
    done = reptok(served, tmp_path / "home", "push", model, NAME)
    assert done.returncode == 0, done.stderr
    assert f"{served.address}/{NAME}/commit/{served.commit_of(NAME)}" in done.stdout
    left_out = {"manifest.json", ".env", "tokenizer/.notes"}
    files = {p.relative_to(model).as_posix(): p.read_bytes() for p in model.rglob("*") if p.is_file()}
    assert served.models[NAME] == {name: data for name, data in files.items() if name not in left_out}
    assert served.private[NAME]
    assert len(served.objects) == sum(name.endswith(".safetensors") for name in files) == 4  # by LFS

    few = ("--steps", 2, "--decoder-steps", 2, "-o", tmp_path)
    made = reptok(served, tmp_path / "home", "generate", NAME, "dog", *few)
    assert made.returncode == 0, made.stderr
    (picture,) = load_pretrained(model)("dog", num_steps=2, decoder_steps=2)
    assert Image.open(tmp_path / "000-000.png").tobytes() == picture.tobytes()


def test_a_dry_run_says_names_and_sizes_and_asks_nobody(model, served, tmp_path):
    done = reptok(served, tmp_path / "home", "push", model, NAME, "--dry-run", token="")
    assert done.returncode == 0, done.stderr
    weights = (model / "generator/model.safetensors").stat().st_size
    assert f"{weights / 1e6:.3f} MB  generator/model.safetensors" in done.stdout
    assert "-> somebody/model (private)" in done.stdout and "states no licence" in done.stdout
    assert ".env" not in done.stdout and "manifest.json" not in done.stdout
    assert served.asked == []


def test_whoever_is_not_logged_in_is_told_how(model, served, tmp_path):
    done = reptok(served, tmp_path / "home", "push", model, NAME, token="")
    assert done.returncode == 2 and "hf auth login" in done.stderr and "Traceback" not in done.stderr
    assert served.models == {}


def test_a_private_upload_does_not_go_where_everybody_looks(model, served, tmp_path):
    served.models[NAME], served.private[NAME] = {}, False
    done = reptok(served, tmp_path / "home", "push", model, NAME)
    assert done.returncode == 2 and "everybody can see it" in done.stderr
    assert served.models[NAME] == {}
    done = reptok(served, tmp_path / "home", "push", model, NAME, "--public")
    assert done.returncode == 0 and "model.json" in served.models[NAME]


def refusal(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["reptok", "push", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_a_card_or_a_model_a_folder_is_refused(model, monkeypatch, capsys, tmp_path):
    (model / "README.md").rename(tmp_path / "README.md")
    assert "has no model card: write README.md" in refusal(monkeypatch, capsys, model, NAME)
    assert "is no model folder" in refusal(monkeypatch, capsys, tmp_path, NAME)
    (model / "README.md").write_text("---\nlicense: [\n---\n")
    assert "cannot be read as a model card" in refusal(monkeypatch, capsys, model, NAME)
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    assert "no name on the hub" in refusal(monkeypatch, capsys, model, "model")
    (model / "elsewhere.txt").symlink_to("/etc/passwd")
    assert "leaves its folder" in refusal(monkeypatch, capsys, model, NAME)


def test_a_stated_licence_needs_no_word(model):
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# m\n")
    said = CliRunner().invoke(cli.app, ["push", str(model), NAME, "--dry-run"]).output
    assert "licence" not in said and "README.md" in said
