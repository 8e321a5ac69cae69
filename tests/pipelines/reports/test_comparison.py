"""Two runs on one page, from artifacts as stages publish them."""

import pytest
from PIL import Image

from pipelines import compare
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation, Figure, Score, save_figure
from pipelines.reports.comparison import differences, find_runs, render_comparison, scores_of
from tests.containers import browser

HOSTILE = "<script>alert(1)</script>"


def published_run(
    root, *, psnr, error=0.1, width=64, extra=(), created="2026-01-01T00:00:00Z", name="0" * 16
):
    """A root with a tokenizer, its report and a model."""
    facts = {"seconds": 61.0, "git_commit": "abc", "created": created}
    tokenizer = Workspace(str(root / "tokenizer" / name), name)
    losses = [{"step": step, "train/loss": 2.0 / step} for step in (1, 2, 3)]
    tokenizer.write_json("history.json", losses)
    config = {"decoder": {"width": width, "depth": 2}, "note": HOSTILE}
    tokenizer.publish({"stage": "train_tokenizer", "config": config, "inputs": {}, "stats": {}, **facts})
    report = Workspace(str(root / "tokenizer_report" / name), name)
    figure = Figure(file="grid.webp", title="Grid", caption=HOSTILE)
    save_figure(report, Image.new("RGBA", (900, 300), "red"), figure)
    scores = [
        Score(name="PSNR", value=psnr, unit="dB", images=200, error=error),
        Score(name="Distance", value=30 - psnr, higher_is_better=False, images=200),
        *extra,
    ]
    Evaluation(title="T", lead="", scores=scores, figures=[figure], notes=[], metrics={}).write(report)
    report.publish(
        {"stage": "evaluate_tokenizer", "config": {}, "inputs": {"tokenizer": name}, "stats": {}, **facts}
    )
    model = Workspace(str(root / "model" / name), name)
    inputs = {"tokenizer": name, "tokenizer_report": name}
    model.publish({"stage": "publish", "config": {}, "inputs": inputs, "stats": {}, **facts})
    return model.url


def test_the_best_is_named_where_it_is_told_apart(tmp_path):
    more = [Score(name="Only here", value=1.0)]
    for root, psnr, extra in (("a", 18.0, more), ("b", 18.5, []), ("c", 18.6, [])):
        published_run(tmp_path / root, psnr=psnr, extra=extra)
    ab, bc = ([str(tmp_path / root) for root in pair] for pair in ("ab", "bc"))
    lines = {line.name: line for line in scores_of(find_runs(ab), "tokenizer_report")}
    assert (lines["PSNR"].best, lines["PSNR"].resolved) == ({1}, True), "0.5 of an error of 0.14"
    assert (lines["Distance"].best, lines["Distance"].resolved) == ({1}, None), "lower is better, no errors"
    assert lines["Only here"].scores[1] is None and lines["Only here"].best == set()
    lines = {line.name: line for line in scores_of(find_runs(bc), "tokenizer_report")}
    assert (lines["PSNR"].best, lines["PSNR"].resolved) == (set(), False), "0.1 of an error of 0.14"


def test_what_differs_is_shown_and_nothing_else(tmp_path):
    for root, width in (("a", 64), ("b", 96)):
        published_run(tmp_path / root, psnr=18.0, width=width)
    runs = find_runs([str(tmp_path / "a"), str(tmp_path / "b")])
    assert differences(runs) == [("train_tokenizer.decoder.width", ["64", "96"])]
    assert [run.label for run in runs] == ["a", "b"]


def test_a_root_stands_for_its_newest_model(tmp_path):
    published_run(tmp_path / "a", psnr=18.0, created="2026-01-01T00:00:00Z", name="1" * 16)
    newest = published_run(tmp_path / "a", psnr=19.0, created="2026-02-01T00:00:00Z", name="2" * 16)
    older = published_run(tmp_path / "a", psnr=17.0, created="2025-02-01T00:00:00Z", name="3" * 16)
    runs = find_runs([str(tmp_path / "a"), older])
    assert [run.model.url for run in runs] == [newest, older]
    assert [run.label for run in runs] == ["a 222222", "a 333333"]


def test_what_cannot_be_compared_is_one_sentence(tmp_path, capsys):
    one = published_run(tmp_path / "a", psnr=18.0)
    for arguments, words in (
        ([one], "two models or more"),
        ([one, str(tmp_path / "a")], "each once"),
        ([one, str(tmp_path / "none")], "no folder of a published model"),
        ([one, "until=shard"], "no until="),
    ):
        assert compare.main(arguments) == 2
        assert words in capsys.readouterr().err
    other = published_run(tmp_path / "b", psnr=18.0)
    (tmp_path / "b/tokenizer_report" / ("0" * 16) / "metrics.json").write_text('{"scores": []}')
    assert compare.main([one, other, f"out={tmp_path}/c.html"]) == 2
    assert "other code" in capsys.readouterr().err and not (tmp_path / "c.html").exists()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_whole_in_a_real_browser(width, tmp_path):
    """No error, no request, no picture that does not load, nothing cut off at the right."""
    if browser.program() is None:
        pytest.skip("no browser is here")
    for root, psnr in (("first", 18.0), ("second", 19.0)):
        published_run(tmp_path / root, psnr=psnr, width=int(psnr))
    out = tmp_path / "c.html"
    assert compare.main([str(tmp_path / "first"), str(tmp_path / "second"), f"out={out}"]) == 0
    with browser.page(tmp_path / "profile") as tab:
        tab.resize(width)
        tab.open(out.as_uri())
        tab.wait_for("first and second", "18.0 dB", "± 0.1", "train_tokenizer.decoder.width", "FlexTok")
        assert tab.problems == [] and HOSTILE in tab.text()
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert tab.evaluate("document.images.length") == 3, "one loss, and the grid of either run"
        assert tab.evaluate("innerWidth") == width
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_it_needs_nothing_beside_it(tmp_path):
    for root in "ab":
        published_run(tmp_path / root, psnr=18.0)
    page = render_comparison(find_runs([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert "http" not in page.replace(str(tmp_path), "") and HOSTILE not in page
