"""The caption stage: one row per downloaded image, the others counted by reason."""

import pytest

from pipelines.ops.caption import CaptionerConfig
from pipelines.stages.caption import Caption, CaptionConfig
from reptok.data.columns import CAPTIONS, IMAGES, read_table, write_table


def images(out, broken=False):
    for shard in range(2):
        rows = [
            {
                "key": f"{shard * 300 + i:012d}",
                "text": f"<b>photo</b> {i}" if i % 3 else None,
                "status": "failed" if i % 10 == 0 else "success",
                "reason": ("HTTP 404" if i % 20 else "robots") if i % 10 == 0 else None,
            }
            for i in range(300)
        ]
        with out.create(f"images-{shard:05d}.parquet") as file:
            write_table(file, rows, IMAGES)


def table(artifact, name):
    with artifact.open(name) as file:
        return read_table(file, CAPTIONS, name).to_pylist()


def test_every_success_has_a_caption_and_every_failure_is_counted(make_artifact, run_stage):
    source = make_artifact("images", images)
    captions, stats = run_stage(Caption(CaptionConfig()), {"images": source})
    assert captions.files() == ["captions-00000.parquet", "captions-00001.parquet"]
    assert stats == {
        "rows_in": 600,
        "rows_out": 540,
        "dropped_robots": 30,
        "dropped_http_404": 30,
        "fallback_empty": 180,
    }
    rows = table(captions, "captions-00001.parquet")
    assert [row["key"] for row in rows] == [f"{300 + i:012d}" for i in range(300) if i % 10]
    assert rows[0] == {"key": f"{301:012d}", "caption": "photo 1", "source": "alt_text", "reason": None}
    assert rows[2] == {"key": f"{303:012d}", "caption": "", "source": "fallback", "reason": "empty"}


def test_same_input_gives_same_bytes(make_artifact, run_stage, digests):
    source = make_artifact("images", images)
    stage = Caption(CaptionConfig())
    assert digests(run_stage(stage, {"images": source}, "a")[0]) == digests(
        run_stage(stage, {"images": source}, "b")[0]
    )


def test_table_without_alt_texts_is_refused(make_artifact, run_stage):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(out):
        with out.create("images-00000.parquet") as file:
            pq.write_table(pa.table({"key": ["0"], "status": ["success"], "reason": ["x"]}), file)

    with pytest.raises(RuntimeError, match=r"images-00000\.parquet has no column 'text'.*rerun `download`"):
        run_stage(Caption(CaptionConfig()), {"images": make_artifact("images", write)})


def test_unknown_captioner_fails_before_anything_runs():
    with pytest.raises(ValueError, match="unknown captioner kind 'oracle'"):
        Caption(CaptionConfig(captioner=CaptionerConfig(kind="oracle")))
