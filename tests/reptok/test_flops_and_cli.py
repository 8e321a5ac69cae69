import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from reptok import cli
from reptok.configs import EncoderConfig, RepTokConfig
from reptok.decoder.sizes import SIZES
from reptok.flops import (
    decoder_cost,
    decoder_training,
    efficiency_table,
    encoder_architecture,
    encoder_cost,
    encoder_training,
    generator_cost,
    generator_training,
    mixer_config,
    tokenizer_training,
)
from reptok.generator import GeneratorConfig, TokenGenerator
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import save_pretrained
from tests.fixtures.tiny_tokenizer import tiny_tokenizer


def test_the_decoder_counts_what_was_counted_by_hand():
    cost = decoder_cost()
    assert cost.parameters == 570_418_752
    assert cost.macs / 1e9 == pytest.approx(128.85, abs=0.01)
    assert cost.attention_macs == 2 * 257**2 * 1152 * 28


def test_both_readings_of_the_mixer_and_the_encoder():
    assert generator_cost(mixer_config(4)).parameters / 1e6 == pytest.approx(370.85, abs=0.01)
    assert generator_cost(mixer_config(3)).macs / 1e9 == pytest.approx(0.834, abs=0.001)
    assert encoder_cost(registers=0).linear_macs / 1e9 == pytest.approx(21.944, abs=0.001)


def test_the_efficiency_table_agrees_with_print_where_no_note_explains_it():
    for row in efficiency_table():
        tolerance = 0.1 if "SiT-L" not in row.name else 3.3
        assert row.gflops == pytest.approx(row.printed_gflops, abs=tolerance), row.name
        assert row.pflops == pytest.approx(row.printed_pflops, rel=0.05), row.name


def test_training_costs_three_forward_passes_where_everything_trains():
    assert decoder_training(SIZES["XL"]) == pytest.approx(6 * decoder_cost().macs, rel=1e-3)
    assert generator_training(mixer_config()) == pytest.approx(
        6 * generator_cost(mixer_config()).macs, rel=1e-3
    )


def test_a_frozen_encoder_costs_no_gradient_of_its_weights():
    """[cls] alone: forward and input gradients, less what the first and the last block can leave out."""
    plain = 2 * encoder_cost().macs
    nothing, cls, everything = (
        encoder_training(EncoderConfig(trainable=what)) for what in ("nothing", "cls", "everything")
    )
    assert nothing < plain and 1.8 * plain < cls < 2 * plain and everything > 2.7 * plain
    config = RepTokConfig()
    assert tokenizer_training(config, draws=2) == cls + 2 * decoder_training(config.decoder)


def test_an_encoder_is_known_by_its_folder_or_its_name(tiny_models):
    folder = encoder_architecture(EncoderConfig(name="folder", path=str(tiny_models / "encoder")))
    assert folder.model_args["embed_dim"] == 32
    large = encoder_architecture(EncoderConfig(name="dinov2_vitl14_reg")).model_args
    assert (large["embed_dim"], large["depth"], large["reg_tokens"]) == (1024, 24, 4)
    clip = encoder_architecture(EncoderConfig(name="clip_vitb16")).model_args
    assert (clip["patch_size"], clip["reg_tokens"]) == (16, 0)
    with pytest.raises(ValueError, match=r"set encoder\.path"):
        encoder_architecture(EncoderConfig(name="convnext"))
    rotary = encoder_architecture(EncoderConfig(name="dinov3_vits16", image_size=256))
    assert rotary.name == "vit_small_patch16_dinov3" and rotary.model_args == {"img_size": 256}


@pytest.fixture(scope="module")
def model(tiny_models, tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(tiny_models)
    config = GeneratorConfig(token_dim=32, dim=16, depth=1, condition="class", num_classes=2)
    folder = tmp_path_factory.mktemp("cli") / "model"
    save_pretrained(RepTokPipeline(tokenizer, TokenGenerator(config), class_names=["cat", "dog"]), folder)
    return str(folder)


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / "red.png", tmp_path / "blue.jpg"]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (50, 40), colour).save(path)
    return [str(p) for p in paths]


def call(*arguments):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_pictures_in_pictures_out(model, pictures, tmp_path):
    call("reconstruct", model, *pictures, "-o", tmp_path / "r", "--steps", 2)
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["blue.png", "red.png"]
    call("generate", model, "cat", "dog", "-o", tmp_path / "g", "--num-images", 2, "--steps", 2)
    assert [Image.open(p).size for p in sorted((tmp_path / "g").iterdir())] == [(32, 32)] * 4
    call("interpolate", model, *pictures, "-o", tmp_path / "i.png", "--frames", 3, "--steps", 2)
    assert Image.open(tmp_path / "i.png").size == (96, 32)
    call("tokenize", model, *pictures, "-o", tmp_path / "t.safetensors")
    assert load_file(tmp_path / "t.safetensors")["token"].shape == (2, 32)


def test_info_and_flops_speak(model):
    assert "classes: cat, dog" in call("info", model)
    said = call("flops")
    assert "RepTok 700K" in said and "ViT-B/14       861.8\n" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "bogus"], "--device bogus cannot be used"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used"),
        (["--device", ""], "--device  cannot be used"),
        (["--cfg-scale", "nan"], "guidance must be a finite number, not nan"),
        (["--cfg-scale=-inf"], "guidance must be a finite number, not -inf"),
    ],
)
def test_an_option_that_cannot_be_is_a_sentence(options, message, model, monkeypatch, capsys, tmp_path):
    few = ["--steps", "2", "--decoder-steps", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["reptok", "generate", model, "cat", *few, *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert f"reptok: {message}" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_exit_status_two(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reptok", "generate", model, "cow"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "reptok: unknown class 'cow'; known classes: cat, dog" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "place"),
    [("reconstruct", "file"), ("generate", "file"), ("tokenize", ""), ("interpolate", "")],
)
def test_a_place_that_cannot_take_the_result_is_refused_before_the_work(command, place, pictures, tmp_path):
    (tmp_path / "file").write_text("mine")
    inputs = [] if command == "generate" else pictures
    said = CliRunner().invoke(cli.app, [command, "no-model", *inputs, "-o", str(tmp_path / place)])
    words = " ".join(said.output.replace("│", " ").split())  # the box breaks lines where a path ends
    assert said.exit_code == 2 and "--out" in words and "is a" in words
    assert (tmp_path / "file").read_text() == "mine"
