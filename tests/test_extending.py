"""The additions of docs/extending.md, made from the page's own code."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import registry
from pipelines.dag import runner
from pipelines.dag.stage import Stage
from pipelines.dag.tracking import TrackingConfig
from pipelines.stages.filter_images import ChosenFilters, FilterImages
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.data.columns import CAPTIONS, IMAGES, write_table
from reptok.data.images import encode_jpeg
from reptok.metrics import evaluator, reconstruction

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


def code_of(heading: str) -> types.ModuleType:
    """The first block of Python below a heading, as a module."""
    source = re.search(rf"## {heading}\n.*?```python\n(.*?)```", PAGE, re.S)[1]
    module = types.ModuleType("extending_" + re.sub(r"\W+", "_", heading))
    sys.modules[module.__name__] = module
    exec(compile(source, heading, "exec"), module.__dict__)
    return module


ROWS = 6
OFF = TrackingConfig(enabled=False)


class Pictures(Stage):
    """Six pictures, of which the second and the fifth are grey, and their captions."""

    def __init__(self, kind):
        super().__init__(ShardConfig())
        self.name, self.inputs, self.output = f"make_{kind}", (), kind

    def run(self, inputs, out):
        noise = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8)
        noise[[1, 4]] = 120
        rows = [
            {"key": f"{i:012d}", "url": f"http://photos.test/{i}", "text": "a", "status": "success",
             "jpg": encode_jpeg(noise[i]), "width": 8, "height": 8, "caption": f"photo {i}",
             "source": "alt_text"}
            for i in range(ROWS)
        ]  # fmt: skip
        schema = IMAGES if self.output == "images" else CAPTIONS
        with out.create(f"{self.output}-train-00000.parquet") as file:
            write_table(file, [{k: v for k, v in row.items() if k in schema.names} for row in rows], schema)
        return {"rows_in": float(ROWS), "rows_out": float(ROWS)}


def test_a_filter_after_the_download_takes_its_pictures_out_of_the_dataset(tmp_path, monkeypatch):
    def in_this_process(shards, job, out, resources):
        for shard in shards:
            yield shard.index, do_shard(shard, job, out), ""

    from pipelines.dag import shards as shards_module
    from pipelines.dag.shard_actor import do_shard

    monkeypatch.setattr(shards_module, "_stream", in_this_process)  # workers cannot import a page
    flat = code_of("A filter after the download").Flat()
    config = ShardConfig(image_size=8)

    def run(*stages):
        made = [Pictures("images"), Pictures("captions"), *stages]
        results = {result.name: result for result in runner.run(made, root=str(tmp_path), tracking=OFF)}
        assert not any(result.error for result in results.values()), results
        return results

    plain = run(ShardDataset(config))
    assert plain["shard"].stats["rows_out"] == ROWS
    judging = FilterImages(ChosenFilters(filters={"flat": flat}))
    results = run(judging, ShardDataset(config, judged=True))
    assert results["make_images"].action == "skip" and results["filter_images"].stats["dropped_flat"] == 2
    stats = results["shard"].stats
    assert (stats["rows_in"], stats["rows_out"], stats["dropped_flat"]) == (ROWS, ROWS - 2, 2)
    assert results["shard"].artifact.fingerprint != plain["shard"].artifact.fingerprint
    again = run(judging, ShardDataset(config, judged=True))
    assert {result.action for result in again.values()} == {"skip"}


def test_a_stage_reads_another_artifact_in_the_place_of_one_of_its_own_alone():
    assert ShardDataset(ShardConfig()).reading(images="other_images").inputs == ("other_images", "captions")
    with pytest.raises(ValueError, match="shard reads images, captions, and no pictures"):
        ShardDataset(ShardConfig()).reading(pictures="textured_images")


def test_the_page_names_the_door_of_filters():
    """Its line of pyproject.toml is of the group that is looked for."""
    (line,) = re.findall(r"```toml\n(.*?)\n", PAGE)
    assert line == f'[project.entry-points."{registry.FILTERS}"]'


def test_a_sampler_halves_its_step_and_quarters_its_error():
    midpoint = code_of("A sampler").Midpoint()
    from reptok.flow.solver import time_grid

    def error(steps):
        end = midpoint.solve(lambda x, t: x, torch.ones(1, 1, dtype=torch.float64), time_grid(steps))
        return abs(float(end) - np.e)

    assert 3.5 < error(8) / error(16) < 4.5


def test_a_metric_reaches_the_evaluation(monkeypatch):
    mae = code_of("A metric of reconstructions").mae
    monkeypatch.setattr(evaluator, "PER_IMAGE", {**reconstruction.PER_IMAGE, "mae": mae})
    scores = evaluator.ReconstructionEvaluator()
    originals = torch.zeros(2, 3, 16, 16)
    scores.add(torch.stack([torch.full((3, 16, 16), 0.5), torch.full((3, 16, 16), 3.0)]), originals)
    assert dict(scores.run())["mae"] == pytest.approx((0.5 + 1.0) / 2)
