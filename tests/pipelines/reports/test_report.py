import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation, Figure, Score, save_figure
from pipelines.reports.lineage import lineage
from pipelines.reports.model_card import Origin, render_card
from pipelines.reports.report import (
    chapter_of,
    history_curves,
    marks,
    quality_curves,
    render_report,
    training_pictures,
)
from tests.containers import browser

HOSTILE = '<script>alert("x")</script>'


def evaluation(**changes):
    baselines = {"z floor": 14.0, "a ceiling": 28.0}
    values = {
        "title": "Tokenizer: back and forth", "lead": "What was done.", "notes": [HOSTILE],
        "metrics": {"eval/psnr": 17.5},
        "scores": [Score(name="PSNR", value=17.5, unit="dB", baselines=baselines, headline=True)],
        "figures": [Figure(file="grid.webp", title="Grid", caption=HOSTILE)],
    }  # fmt: skip
    return Evaluation(**{**values, **changes})


@pytest.fixture
def report_artifact(tmp_path):
    def publish(kind, stage, inputs, stats, name="0" * 16):
        out = Workspace(str(tmp_path / kind / name), name)
        if kind == "tokenizer_report":
            found = evaluation()
            for figure in found.figures:
                save_figure(out, Image.new("RGBA", (40, 30), "red"), figure)
            found.write(out)
        if kind == "tokenizer":
            out.write_json("history.json", [{"step": 1, "train/loss": 2.0}, {"step": 2, "val/loss": 1.0}])
        out.publish(
            {"stage": stage, "config": {"note": HOSTILE}, "inputs": inputs, "stats": stats, "seconds": 61.0}
        )
        return Artifact(kind, name, out.url)

    publish("urls", "select_urls", {}, {"rows_in": 10.0, "rows_out": 7.0, "dropped_exact_duplicate": 3.0})
    publish("tokenizer", "train_tokenizer", {"urls": "0" * 16, "gone": "1" * 16}, {})
    return publish("tokenizer_report", "evaluate_tokenizer", {"tokenizer": "0" * 16}, {})


def test_an_evaluation_reads_back_as_written(report_artifact):
    found = Evaluation.read(report_artifact)
    assert found == evaluation()
    assert list(found.scores[0].baselines) == ["z floor", "a ceiling"]  # in reading order


def test_the_lineage_has_every_ancestor_once_sources_first(report_artifact):
    steps = lineage([report_artifact, report_artifact])
    assert [step.stage for step in steps] == ["select_urls", "train_tokenizer", "evaluate_tokenizer"]
    assert steps[0].drops == {"exact duplicate": 3} and steps[0].adds_up
    assert steps[1].rows_in is None


@pytest.mark.parametrize(
    "text",
    [HOSTILE, "*x* **x** _x_ __x__ ~~x~~ `x`", "# x", "x #", "- x", "+ x", "1. x", "12) x", "> x", "a | b",
     "[x](https://evil.test)", "![x](y.png)", "<https://evil.test>", "&lt;b&gt;", "\\* x", "--- x", "a_b -1"],
)  # fmt: skip
def test_a_strangers_text_means_itself_in_the_card(text):
    marks_down = (
        pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    )

    def card(words):
        score = Score(name=words, value=1.0, baselines={words: 2.0})
        made = evaluation(title=words, lead=words, notes=[words], scores=[score])
        return marks_down.parse(render_card(words, [made], [(words, "a_b.webp")], "", Origin()))

    def kinds(tokens):
        return [[token.type, kinds(token.children or [])] for token in tokens]

    assert kinds(card(text)) == kinds(card("plain words"))
    found = card(text)
    heading = next(after for token, after in pairwise(found) if token.tag == "h1")
    assert "".join(child.content for child in heading.children) == text


def test_the_report_is_one_file_and_every_text_is_escaped(report_artifact):
    steps = lineage([report_artifact])
    trainings = training_pictures({"Tokenizer": steps[1].artifact})
    html = render_report(HOSTILE, [chapter_of(report_artifact)], trainings, steps)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("data:image/webp;base64,") == 2
    assert "http://" not in html and "https://" not in html
    for text in (
        "17.5 dB",
        "z floor",
        "exact duplicate",
        "adds up",
        "1 min 1 s",
        "prefers-color-scheme: dark",
    ):
        assert text in html


def test_a_run_without_histories_has_no_training_chapter(report_artifact):
    steps = lineage([report_artifact])
    assert training_pictures({"Generator": steps[0].artifact}) == []
    assert 'id="training"' not in render_report("t", [chapter_of(report_artifact)], [], steps)


def test_histories_without_losses_draw_nothing():
    assert history_curves([{"step": 1, "speed/images_per_second": 3.0}]) is None


def test_quality_over_steps_is_a_curve_that_says_on_how_few_it_was_taken():
    """Higher scores are drawn higher: the second of three lies above both others."""
    history = [{"step": 10 * n, "train/loss": 1.0} for n in range(5)]
    for step, score in ((10, 12.0), (20, 18.0), (30, 12.0)):
        history.append({"step": step, "online/psnr_ema_n64": score})
    ((caption, image),) = quality_curves(history)
    assert "on 64 validation samples" in caption
    grey = np.asarray(image.convert("RGBA").resize((300, 120)))
    colour = np.ptp(grey[..., :3].astype(int), axis=2) * (grey[..., 3] > 100)  # ink and grid are grey
    columns = np.flatnonzero(colour.max(0) > 40)
    heights = {at: np.flatnonzero(colour[:, at] > 40).mean() for at in columns}
    middle = columns[len(columns) // 2]
    assert heights[middle] + 20 < min(heights[columns[2]], heights[columns[-3]])
    assert quality_curves(history[:5]) == []


def test_marks_span_the_line_and_end_with_the_model():
    places = marks(evaluation().scores[0])
    assert [round(place) for place, _ in places] == [0, 100, 25]
    assert places[-1][1] == "this model: 17.5 dB"


def test_scores_show_sensible_digits():
    assert Score(name="x", value=0.12345).show() == "0.123"
    assert Score(name="x", value=91.26, unit="%").show() == "91.3 %"
    assert Score(name="x", value=16.913).show(2.0) == "2.00"


def test_pictures_survive_the_round_trip(report_artifact):
    with Image.open(io.BytesIO(report_artifact.read_bytes("grid.webp"))) as image:
        assert image.size == (40, 30)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_whole_in_a_real_browser(width, report_artifact, tmp_path):
    if browser.program() is None:
        pytest.skip("no browser is here")
    steps = lineage([report_artifact])
    trainings = training_pictures({"T": steps[1].artifact})
    page = tmp_path / "report.html"
    page.write_text(render_report("Model", [chapter_of(report_artifact)], trainings, steps))
    with browser.page(tmp_path / "profile") as tab:
        tab.resize(width)
        tab.open(page.as_uri())
        tab.wait_for("Model", "17.5 dB", "z floor", "exact duplicate", "1 min 1 s")
        assert tab.problems == []
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert tab.evaluate(cut) == 0, "a table is cut off"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
