"""Sets of pictures scored whole, on a network whose answers are known, and by the command."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from reptok import cli
from reptok.metrics.sample_files import open_images
from reptok.metrics.score import Seen, reference_of, scores, see


class Colours:
    """Looks at the mean colour; a picture's logits say which of three channels is brightest."""

    name = "inception"

    def look(self, pixels):
        mean = pixels.double().mean((2, 3))
        return {
            "pooled": mean,
            "spatial": mean[:, :2] * 2,
            "logits": 1000 * (mean == mean.amax(1, keepdim=True)),
        }


def pictures(colours, spread, number, seed):
    """Flat pictures (number, 4, 4, 3) around the colours in turn."""
    random = np.random.default_rng(seed)
    base = np.resize(np.array(colours, float), (number, 3))
    return (
        np.clip(base + spread * random.standard_normal((number, 3)), 0, 255)
        .astype(np.uint8)[:, None, None]
        .repeat(4, 1)
        .repeat(4, 2)
    )


RGB = [[200, 50, 50], [50, 200, 50], [50, 50, 200]]


@pytest.fixture
def files(tmp_path):
    np.savez(tmp_path / "real.npz", pictures(RGB, 10, 300, 0))
    np.savez(tmp_path / "good.npz", pictures(RGB, 10, 300, 1))
    np.savez(tmp_path / "red.npz", pictures(RGB[:1], 10, 300, 2))
    return tmp_path


def scored(samples, reference, network=None):
    network = network or Colours()
    held = reference_of(reference, network, lambda images: see(images, network, 32))
    found = see(open_images(samples), network, 50)
    return {name: estimate for name, estimate in scores(found, held, network.name)}


def test_good_samples_and_a_collapse_are_told_apart(files):
    good, red = (scored(files / f"{name}.npz", files / "real.npz") for name in ("good", "red"))
    assert good["fid"].value < 20 < 5000 < red["fid"].value
    assert good["sfid"].value < 40 < 5000 < red["sfid"].value
    assert good["inception_score"].value == pytest.approx(3, abs=1e-6)
    assert red["inception_score"].value == pytest.approx(1, abs=1e-6)
    assert good["recall"].value > 0.9 > 0.35 > red["recall"].value
    assert red["precision"].value > 0.8
    assert good["kid"].value < red["kid"].value / 100
    assert good["fid_of_halves"].images == good["fdr_inception"].images == 150
    assert good["fdr_inception"].value < 20 < 1000 < red["fdr_inception"].value
    assert abs(good["fid_infinity"].value) < good["fid"].value + 2 * good["fid_infinity"].error


def test_a_set_has_no_distance_from_itself_and_the_closed_form_from_moments(files):
    assert scored(files / "real.npz", files / "real.npz")["fid"].value == pytest.approx(0, abs=1e-6)
    real = np.load(files / "real.npz")["arr_0"][:, 0, 0].astype(np.float64)
    np.savez(files / "moments.npz", mu=real.mean(0) + np.array([3, 0, 4]), sigma=np.cov(real.T))
    found = scored(files / "real.npz", files / "moments.npz")
    assert found["fid"].value == pytest.approx(25, abs=1e-6)
    assert not {"kid", "precision", "fid_of_halves", "sfid"} & found.keys(), "nothing to compare with"


def test_moments_of_a_file_go_before_those_of_its_images(files):
    """ADM's file holds the moments of the whole training set and few of its images."""
    real = np.load(files / "real.npz")["arr_0"]
    np.savez(
        files / "adm.npz", real[:20], mu=np.zeros(3), sigma=np.eye(3), mu_s=np.zeros(2), sigma_s=np.eye(2)
    )
    found = scored(files / "good.npz", files / "adm.npz")
    assert found["fid"].value > 3000 and found["sfid"].value > 3000
    assert found["fid_of_halves"].images == 10 and found["precision"].value > 0


def test_another_networks_distances_have_its_name(files):
    class Vit(Colours):
        name = "vit"

        def look(self, pixels):
            return {"pooled": pixels.double().mean((2, 3))}

    found = scored(files / "good.npz", files / "real.npz", Vit())
    assert set(found) == {
        "fd_vit", "fd_vit_infinity", "kd_vit", "precision_vit", "recall_vit", "fd_vit_of_halves",
        "fdr_vit",
    }  # fmt: skip


def test_the_order_of_a_batch_is_the_order_of_the_file(files):
    one, other = (see(open_images(files / "good.npz"), Colours(), size) for size in (7, 300))
    torch.testing.assert_close(one.pooled, other.pooled, rtol=0, atol=0)
    torch.testing.assert_close(one.spatial.covariance, other.spatial.covariance, rtol=1e-12, atol=1e-9)
    assert one.classes.score().value == pytest.approx(other.classes.score().value, rel=1e-12)
    assert isinstance(one, Seen) and len(one) == 300


def test_the_command_scores_folders_by_an_encoder(tiny_models, files, monkeypatch, capsys):
    out = files / "scores/s.json"
    arguments = ["score", files / "good.npz", "--reference", files / "real.npz",
                 "--encoder", tiny_models / "encoder", "--out", out]  # fmt: skip
    said = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert said.exit_code == 0, said.output
    record = json.loads(out.read_text())
    assert record["samples"]["images"] == 300 and len(record["reference"]["sha256"]) == 64
    names = record["scores"].keys()
    assert "gfd_vit/real_n300" in names and "recall_vit/real_n300" in names
    assert "gfd_vit/real_n300" in said.output and "±" in said.output
    assert 0 < record["scores"]["recall_vit/real_n300"]["error"] < 0.05
    for change, words in (
        (["--protocol", "adm"], "no protocol 'adm'; there are"),
        (["--inception", str(files / "real.npz")], "say which network looks"),
    ):
        monkeypatch.setattr("sys.argv", ["reptok", *map(str, arguments), *change])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2 and words in capsys.readouterr().err
