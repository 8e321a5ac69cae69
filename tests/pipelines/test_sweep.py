"""A grid: what is asked for, what runs, and when a difference counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pipelines import sweep, workflows
from pipelines.evaluation.results import Score
from pipelines.reports.sweep import Arm, chart, lines_of, read, record, render_sweep
from pipelines.reports.sweep_index import Recipe, page


def test_a_grid_is_every_value_with_every_other() -> None:
    (grid,), folder = sweep.parse([
        "over=train.preservation_weight=0,0.1", "over=a=[1,2],{b: 3, c: 4},\"x,y\"", "seeds=3",
        "experiment=smoke",
    ])  # fmt: skip
    assert folder is None
    assert grid.over == {"train.preservation_weight": ["0", "0.1"], "a": ["[1,2]", "{b: 3, c: 4}", '"x,y"']}
    assert (grid.seeds, grid.rest) == (3, ["experiment=smoke"])
    points = list(grid.points())
    assert len(points) == 6 and points[1] == {"train.preservation_weight": "0", "a": "{b: 3, c: 4}"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiment=smoke"], "what is to be varied"),
        (["over=a=1"], "two different values"),
        (["over=a=1,1"], "two different values"),
        (["over=a"], "two different values"),
        (["over=a=1,2", "over=a=3,4"], "each key once"),
        (["over=a=1,2", "over=b=1,2", "over=c=1,2"], "once or twice"),
        (["over=a=1,2", "seeds=0"], "1 or more"),
        (["over=a=1,2", "a=3"], "a is varied"),
        (["over=a=1,2", "seeds=2", "train.generator.seed=3"], r"train\.generator\.seed is varied"),
        (["recipe=token", "encoder.token=reg"], r"encoder\.token is varied"),
        (["recipe=token", "over=a=1,2"], "a recipe says what is varied"),
        (["recipe=tokenn"], "did you mean token"),
    ],
)
def test_what_cannot_be_swept_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sweep.parse(words)


def test_a_value_that_no_configuration_takes_stops_all_before_the_first_runs(
    capsys: pytest.CaptureFixture,
) -> None:
    assert sweep.main(["over=train.preservation_weight=0.1,-1", "experiment=smoke"]) == 2
    found = capsys.readouterr()
    assert "preservation_weight" in found.err and "sweep 1 of" not in found.out


def test_every_recipe_is_a_grid_of_workflows_that_can_be_built() -> None:
    grids, folder = sweep.parse(["recipe=all", "out=pages"])
    assert folder == Path("pages") and grids[0].out == Path("pages/preservation.html")
    for grid in grids:
        prints = {
            stage.name
            for point in sweep.plan(grid)
            for stage in workflows.build(point.config)
            if stage.name.startswith("evaluate_")
        }
        assert prints, grid.out


def arm(value: str, *seeds: float, higher: bool = True) -> Arm:
    return Arm(
        values={"train.weight": value},
        scores=[
            {"PSNR": Score(name="PSNR", value=seed, unit="dB", headline=True, higher_is_better=higher)}
            for seed in seeds
        ],
    )


def test_an_arm_counts_where_its_seeds_overlap_with_none_of_the_first() -> None:
    arms = [arm("0", 10.0, 12.0), arm("1", 11.0, 14.0), arm("2", 12.5, 13.0), arm("3"), arm("4", 20.0)]
    ((line),) = lines_of(arms)
    assert [cell.mean for cell in line.cells] == [11.0, 12.5, 12.75, None, 20.0]
    assert [cell.resolved for cell in line.cells] == [None, False, True, None, None]
    assert (line.cells[1].low, line.cells[1].high) == (11.0, 14.0)


def test_the_page_says_what_is_better_what_is_not_resolved_and_what_failed() -> None:
    arms = [arm("0", 10.0, 12.0), arm("1", 11.0, 14.0), arm("2", 12.5, 13.0), arm("3", 1.0, 2.0)]
    arms[3].failures.append("train_tokenizer: <b>no memory</b>")
    page = render_sweep(arms, ["train.weight"], 2, chart(arms, ["train.weight"]))
    cells = [part.split("</td>")[0] for part in page.split("<td class=")[1:]]
    assert [("not resolved" in cell, "better" in cell.split(">")[0]) for cell in cells] == [
        (False, False), (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert "12.8 dB" in cells[2] and "&lt;b&gt;no memory" in page and "data:image/webp" in page


def test_the_page_of_recipes_is_made_from_what_was_written_down() -> None:
    arms = [arm("cls", 18.0, 18.4), arm("reg", 18.2, 19.0), arm("nothing", 15.0, 16.0), arm("all")]
    arms[3].failures.append("train_tokenizer: no | memory")
    assert read(record(arms)) == arms
    recipe = Recipe(
        title="What trains", paper="table 2", says="14.94 dB.", over={"a": ["1", "2"]}, scores=["x", "PSNR"]
    )
    told = page({"never_run": recipe, "trainable": recipe}, {"trainable": read(record(arms))})
    assert (
        "never_run" not in told and "table 2): 14.94 dB." in told and "![What trains](trainable.webp)" in told
    )
    row = next(line for line in told.splitlines() if line.startswith("| PSNR |"))
    assert row == (
        "| PSNR | 18.2 dB (18.0 dB to 18.4 dB) | *18.6 dB, not resolved* (18.2 dB to 19.0 dB) "
        "| **15.5 dB** (15.0 dB to 16.0 dB) | – |"
    )
    assert "weight all failed: train_tokenizer: no &#124; memory" in told


def test_what_is_no_record_of_a_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="not the values of a grid"):
        read('[{"values": {}}]')


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_recipe_ends_in_a_page_beside_those_that_were_run_before(tmp_path: Path) -> None:
    (tmp_path / "token.json").write_text(record([arm("cls", 1.0), arm("reg", 2.0)]))
    words = [
        "recipe=decoder_steps", "experiment=smoke", f"root={tmp_path / 'runs'}", f"out={tmp_path}",
        "tracking.enabled=false",
    ]  # fmt: skip
    assert sweep.main(words) == 0
    told = (tmp_path / "README.md").read_text()
    assert "recipe=decoder_steps seeds=1" in told and "recipe=token seeds=1" in told
    steps = [
        row["scores"]["PSNR"]["seeds"] for row in json.loads((tmp_path / "decoder_steps.json").read_text())
    ]
    assert len({value for (value,) in steps}) == len(steps) == 6
    assert len(list((tmp_path / "runs" / "tokenizer").iterdir())) == 1, "one training serves them all"
    assert Image.open(tmp_path / "decoder_steps.webp").width > 500


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_runs_what_differs_once_and_ends_in_a_page(tmp_path, capsys: pytest.CaptureFixture) -> None:
    words = [
        "over=train.preservation_weight=0,10", "seeds=2", "experiment=smoke", "until=evaluate_tokenizer",
        f"root={tmp_path / 'runs'}", f"out={tmp_path / 'sweep.html'}", "tracking.enabled=false",
    ]  # fmt: skip
    assert sweep.main(words) == 0
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["values"] for row in rows] == [{"train.preservation_weight": v} for v in ("0", "10")]
    values = [row["scores"]["PSNR"]["seeds"] for row in rows]
    assert all(len(seeds) == 2 and seeds[0] != seeds[1] for seeds in values) and values[0] != values[1]
    published = {kind: len(list((tmp_path / "runs" / kind).iterdir())) for kind in ("latents", "tokenizer")}
    assert published == {"latents": 1, "tokenizer": 4}
    assert Image.open(tmp_path / "sweep.webp").width > 500 and "PSNR" in (tmp_path / "sweep.html").read_text()
    capsys.readouterr()
    assert sweep.main(words) == 0
    assert "train_tokenizer: run" not in capsys.readouterr().out, "the same command makes nothing again"
