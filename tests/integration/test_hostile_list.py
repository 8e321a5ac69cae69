"""The program itself over a list of strangers: every row has its fate, and the run ends as any other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.crawl.reasons import is_reason
from reptok.data.images import encode_jpeg
from tests.integration.conftest import Program, artifact

COUNT = 30
RULES = (
    "min_size", "max_aspect_ratio", "min_text_length", "min_clip_similarity_vitb32",
    "max_watermark_score", "max_nsfw_score_opennsfw2", "max_nsfw_score_gantman",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_answers_urls_redirects_robots_files_and_alt_texts_through_the_command(
    tmp_path: Path, program: Program, hostile_web: ModuleType, load_fixture: Callable[[str], ModuleType]
) -> None:
    fuzz, texts, seed = (
        load_fixture("fuzz_crawl"),
        load_fixture("alt_text_mutants"),
        random.randrange(1 << 30),
    )
    print(f"seed {seed}")
    rngs = [random.Random(seed + number) for number in range(COUNT)]
    good = {
        f"/good/{number}": hostile_web.answer(200, encode_jpeg(np.full((64, 64, 3), number, np.uint8)))
        for number in range(COUNT)
    }
    with fuzz.served(rngs, hostile_web, good) as (urls, hosts):
        rng = random.Random(seed)
        alt_texts = [texts.mutant(rng).encode("utf-8", "replace").decode() for _ in urls]
        pq.write_table(pa.table({"url": urls, "text": alt_texts}), tmp_path / "list.parquet")
        root = tmp_path / "runs"
        done = program(
            "run_all.py", "experiment=smoke", f"root={root}", "until=caption", "captioner=source",
            "data.photographs=null", "data.download.serve=",
            f"data.select_urls.sources=[{tmp_path / 'list.parquet'}]",
            f"data.download.fetch.allow_hosts=[{','.join(hosts)}]", "data.download.fetch.contact=a test",
            "data.download.fetch.second_pass_seconds=0", "data.download.fetch.host_pause_seconds=0.05",
            "data.download.fetch.turn_seconds=2",
            "data.download.fetch.retries=0", "data.download.fetch.attempt_seconds=5",
            "data.select_urls.dedup_image=false",
            *(f"data.select_urls.filters.{rule}=null" for rule in RULES),
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stdout + done.stderr and "\x1b" not in done.stdout + done.stderr
    chosen, fetched, captioned = (
        pa.concat_tables(pq.read_table(file) for file in sorted(artifact(root, kind).glob("*.parquet")))
        for kind in ("urls", "images", "captions")
    )
    assert fetched.num_rows == chosen.num_rows > 3 * COUNT
    reasons = [reason for reason in fetched["reason"].to_pylist() if reason]
    assert all(is_reason(reason) and not reason.startswith("internal_") for reason in reasons)
    assert fetched["status"].to_pylist().count("success") == captioned.num_rows >= COUNT
    assert not any(reason.startswith("internal_") for reason in captioned["reason"].to_pylist() if reason)
