"""What a user can get wrong ends with one clear line, a status, and nothing lost."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq


def _error(done) -> str:
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_unknown_key_names_the_nearest_one(program, tmp_path):
    error = _error(program("run_all.py", "experiment=smoke", f"root={tmp_path}", "train.tokenizer.step=3"))
    assert "train.tokenizer.step" in error and "train.tokenizer.steps" in error
    assert not list(tmp_path.iterdir())


def test_an_unknown_experiment_lists_what_there_is(program, tmp_path):
    error = _error(program("run_all.py", "experiment=dmo", f"root={tmp_path}"))
    assert "dmo" in error and "demo" in error


def test_a_missing_column_is_named(program, tmp_path):
    source = tmp_path / "list.parquet"
    pq.write_table(pa.table({"link": ["http://a.example/1.jpg"], "text": ["one"]}), source)
    error = _error(
        program(
            "run_all.py",
            "experiment=smoke",
            f"root={tmp_path / 'runs'}",
            "until=select_urls",
            "data.photographs=null",
            "data.download.serve=",
            f"data.select_urls.sources=[{source}]",
        )
    )
    assert "url" in error and "list.parquet" in error and "link" in error


def test_a_missing_folder_of_images_is_named(program, tmp_path):
    error = _error(
        program(
            "run_all.py",
            "experiment=demo_classes",
            f"root={tmp_path / 'runs'}",
            f"data.folder={tmp_path / 'nothing'}",
        )
    )
    assert "nothing" in error and "data.folder" in error


def test_a_hub_id_without_network_says_what_to_do(program, smoke, tmp_path):
    root = shutil.copytree(smoke, tmp_path / "runs")
    arguments = ("experiment=smoke", f"root={root}", "until=encode_latents")
    own = ("vae.path=nobody/nothing", "decoder.latent_channels=4", "decoder.latent_size=8")
    error = _error(program("run_all.py", *arguments, *own))
    assert "nobody/nothing" in error and "folder" in error
