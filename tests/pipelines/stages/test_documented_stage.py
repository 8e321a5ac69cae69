"""The stage that the documentation shows runs as it stands there."""

import re
from collections import Counter
from pathlib import Path

from pipelines.dag.stage import Stage
from reptok.data import columns

PAGE = Path(__file__).resolve().parents[3] / "docs" / "architecture.md"


def test_the_stage_of_the_documentation_counts_first_words(make_artifact, run_stage):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S).group(1)
    names = {"Stage": Stage, "Counter": Counter, "columns": columns}
    exec(code, names)
    rows = [
        {"key": f"{number:012d}", "caption": caption, "source": "model"}
        for number, caption in enumerate(["a cat", "a red dog", "", "two owls"])
    ]

    def write(out):
        with out.create("captions-train-00000.parquet") as file:
            columns.write_table(file, rows, columns.CAPTIONS)

    artifact, stats = run_stage(
        names["CountFirstWords"](None), {"captions": make_artifact("captions", write)}
    )
    assert artifact.read_json("words.json") == [["a", 2], ["two", 1]] and stats == {"words": 2.0}
