"""Filters are added and left out by one line each, and what they need follows or is refused."""

import pytest
from PIL import Image

from pipelines.configuration.compose import load_config
from pipelines.configuration.construct import ConfigError
from pipelines.configuration.schema import Config
from pipelines.dag.fingerprint import plain
from pipelines.workflows import build


def stages(*overrides):
    return {stage.name: stage for stage in build(load_config(Config, overrides))}


def filters(*overrides):
    return list(stages(*overrides)["filter_images"].config.filters)


def test_the_demo_has_no_filter_and_its_stages_know_of_none():
    found = stages()
    assert "filter_images" not in found
    assert found["caption"].inputs[0] == "images" and "verdicts" not in found["caption"].inputs
    assert found["shard"].inputs == ("images", "captions")
    assert "hash_whole" not in plain(found["download"].config, significant_only=True)["resize"]


def test_coyo_is_compared_with_its_hashes_and_one_line_leaves_that_out():
    own = "experiment=t2i_coyo"
    assert filters(own) == ["listed_hash"]
    found = stages(own)
    assert found["filter_images"].config.filters["listed_hash"].max_distance == 12
    assert found["download"].config.resize.hash_whole
    assert found["caption"].inputs == ("images", "verdicts")
    assert found["shard"].inputs == ("images", "captions", "verdicts")
    without = stages(own, "data.filter_images.listed_hash=null")
    assert "filter_images" not in without and not without["download"].config.resize.hash_whole


def test_each_filter_is_one_line():
    assert filters("data.filter_images.duplicates={}") == ["duplicates"]
    assert filters("data.filter_images.duplicates.distance=null") == ["duplicates"]
    every = ["data.filter_images.listed_hash.max_distance=8", "data.filter_images.duplicates={}"]
    clip = "data.filter_images.clip.path=zoo/encoder"  # any folder, for a plan
    assert filters(*every, clip) == ["listed_hash", "clip", "duplicates"]
    assert stages(*every)["filter_images"].config.filters["listed_hash"].max_distance == 8


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    return [f"data.folder={tmp_path}", "data=folder", "generator=mixer_unconditional_tiny"]


def test_pictures_of_a_folder_are_judged_too_but_not_by_a_list(folder):
    found = list(stages(*folder, "data.filter_images.duplicates={}"))
    assert found[:4] == ["import_images", "filter_images", "caption", "shard"]
    with pytest.raises(ConfigError, match=r"data\.folder=.* is none; leave it out with .*listed_hash=null"):
        load_config(Config, [*folder, "data.filter_images.listed_hash={}"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.filter_images.listed_hash.max_distance=65"], "max_distance must be at most 64"),
        (["data.filter_images.listed_hash.max_distence=3"], "did you mean .*max_distance"),
        (["data.filter_images.duplicates.distance=7"], "distance must be at most 6"),
        (["data.filter_images.clip={}"], "data.filter_images.clip.path has no value"),
        (["experiment=t2i_coyo", "data.download.engine=img2dataset"], "engine=img2dataset does not take"),
        (["data.filter_images.listed_hash={}", "data.download.resize.hash_whole=false"], "contradicts"),
    ],
)
def test_what_does_not_fit_is_said(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config(Config, overrides)


def test_a_clip_computes_where_all_networks_do():
    own = [
        "experiment=t2i_coyo",
        "data.filter_images.clip.path=zoo/encoder",
        "data.filter_images.workers.workers=8",
    ]
    found = stages(*own)["filter_images"]
    assert found.config.filters["clip"].compute.device == "cuda" and found.resources.gpus == 8
    assert stages("experiment=t2i_coyo")["filter_images"].resources.gpus == 0
