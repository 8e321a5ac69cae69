"""A small COYO: a parquet with all of COYO-700M's columns over crops of photographs, and its web."""

from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from examples.photographs.faults import FAULTS, HOSTS, PHOTOS, ROBOTS, Row, Web
from examples.photographs.photographs import Split, sample_crop
from examples.photographs.subjects import SUBJECTS
from pipelines.crawl.phash import perceptual_hash
from reptok.bounds import Count, Share, Whole

SCHEMA = pa.schema(
    [("id", pa.int64()), ("url", pa.string()), ("text", pa.string())]
    + [("width", pa.int64()), ("height", pa.int64()), ("image_phash", pa.string())]
    + [(name, pa.int64()) for name in ("text_length", "word_count", "num_tokens_bert", "num_tokens_gpt")]
    + [("num_faces", pa.int64())]
    + [(name, pa.float64()) for name in ("clip_similarity_vitb32", "clip_similarity_vitl14")]
    + [(name, pa.float64()) for name in ("nsfw_score_opennsfw2", "nsfw_score_gantman", "watermark_score")]
    + [("aesthetic_score_laion_v2", pa.float64())]
    + [("split", pa.string()), ("label", pa.int64()), ("subject", pa.string())]
)
"""COYO-700M's columns in its order, then the demo's own three."""

FIRST_ID = 1_000_000_000
DIRTY_TEXTS = 0.05
DUPLICATES = ("duplicate_url", "duplicate_image")


@dataclass(frozen=True, kw_only=True)
class CoyoConfig:
    """How large the demo's web is.

    Attributes:
        images: rows that lead to a good image, without the faulty ones.
        fault_fraction: further rows with faults, as a fraction of `images`; the kinds take turns.
        val_fraction: fraction of crops from the places kept for validation.
        slow_urls: how many of the faults may drip, each of which costs a client its whole patience.
        seed: draws everything.
    """

    images: Count = 2000
    fault_fraction: Share = 0.12
    val_fraction: Share = 0.15
    slow_urls: Whole = 2
    seed: Whole = 0

    def __post_init__(self) -> None:
        if self.images < 1 or not 0 < self.val_fraction < 1 or not 0 <= self.fault_fraction <= 1:
            raise ValueError("need images >= 1, 0 < val_fraction < 1 and 0 <= fault_fraction <= 1")


@dataclass(frozen=True)
class Corpus:
    """The demo's web.

    Attributes:
        table: rows of `SCHEMA`.
        files: "host/path" to content.
        faults: {"hosts", "robots": {host: text}, "routes": {"host/path": route},
            "rows": {id: {"fault", "expected"}} for every row with a fault}.
    """

    table: pa.Table
    files: dict[str, bytes]
    faults: dict[str, Any]


def make_corpus(config: CoyoConfig) -> Corpus:
    """Draw the corpus; the same config gives the same bytes."""
    web = Web()
    rows: list[Row] = []
    kinds: list[dict[str, str]] = []
    for index, kind in enumerate([""] * config.images + _kinds(config)):
        row, jpeg = _row(config, index)
        expected = "success"
        if kind in DUPLICATES:
            _duplicate(kind, row, rows[index - config.images], web)
            expected = f"dropped_{kind}"
        elif kind:
            expected = FAULTS[kind](web, row, jpeg)
        else:
            web.put(row["url"], jpeg)
        rows.append(row)
        kinds.append({"fault": kind, "expected": expected})
    order = _order(config, kinds)
    faulty = {}
    for position, index in enumerate(order):
        rows[index]["id"] = FIRST_ID + position
        if kinds[index]["fault"]:
            faulty[str(FIRST_ID + position)] = kinds[index]
    table = pa.Table.from_pylist([rows[index] for index in order], schema=SCHEMA)
    faults = {"hosts": list(HOSTS), "robots": ROBOTS, "routes": web.routes, "rows": faulty}
    return Corpus(table, web.files, faults)


def _kinds(config: CoyoConfig) -> list[str]:
    names = [*FAULTS, *DUPLICATES]
    count = round(config.images * config.fault_fraction)
    kinds = [names[index % len(names)] for index in range(count)]
    slow = [index for index, kind in enumerate(kinds) if kind == "slow"]
    for index in slow[config.slow_urls :]:
        kinds[index] = "missing"
    return kinds


def _order(config: CoyoConfig, kinds: list[dict[str, str]]) -> list[int]:
    """Shuffle the rows, each duplicate after its original."""
    order = [int(index) for index in np.random.default_rng([config.seed, 1]).permutation(len(kinds))]
    place = {index: position for position, index in enumerate(order)}
    for index, kind in enumerate(kinds):
        original = index - config.images
        if kind["fault"] in DUPLICATES and place[index] < place[original]:
            place[index], place[original] = place[original], place[index]
    return sorted(place, key=place.__getitem__)


def _duplicate(kind: str, row: Row, original: Row, web: Web) -> None:
    text = row["text"]
    url = original["url"].replace("/photos/", "/copies/")
    row.update(original, text=text, **_counts(text))
    if kind == "duplicate_image":
        row["url"] = url
        web.put(url, web.files[original["url"].removeprefix("http://")])


def _row(config: CoyoConfig, index: int) -> tuple[Row, bytes]:
    """One row with its JPEG; subjects and splits take turns, so that each split has all subjects alike."""
    rng = np.random.default_rng([config.seed, 0, index])
    label = index % len(SUBJECTS)
    subject = SUBJECTS[label]
    turn = index // len(SUBJECTS)
    share = config.val_fraction
    split: Split = "val" if int((turn + 1) * share) > int(turn * share) else "train"
    image = Image.fromarray(sample_crop(subject, split, rng))
    text = subject.alt_texts[rng.integers(len(subject.alt_texts))]
    if rng.random() < DIRTY_TEXTS:
        text = _dirty(text, int(rng.integers(4)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(75, 96)))
    row = {
        "url": f"http://{PHOTOS}/photos/{2008 + rng.integers(12)}/{subject.name}-{index:06d}.jpg",
        "text": text,
        "width": image.width,
        "height": image.height,
        "image_phash": perceptual_hash(image),
        **_counts(text),
        "num_faces": int(subject.name == "astronaut"),
        "clip_similarity_vitb32": _score(rng, 0.24, 0.38),
        "clip_similarity_vitl14": _score(rng, 0.18, 0.32),
        "nsfw_score_opennsfw2": _score(rng, 0.0, 0.2),
        "nsfw_score_gantman": _score(rng, 0.0, 0.2),
        "watermark_score": _score(rng, 0.0, 0.3),
        "aesthetic_score_laion_v2": _score(rng, 4.5, 6.5),
        "split": split,
        "label": label,
        "subject": subject.name,
    }
    return row, file.getvalue()


def _counts(text: str) -> dict[str, int]:
    """COYO's counts of a text; its two token counts are estimated by words and punctuation marks."""
    pieces = len(re.findall(r"\w+|[^\w\s]", text))
    return {
        "text_length": len(text),
        "word_count": len(text.split()),
        "num_tokens_bert": pieces + 2,
        "num_tokens_gpt": pieces,
    }


def _dirty(text: str, way: int) -> str:
    """What alt-texts look like on real pages."""
    return (
        html.escape(f'"{text}" & more'),
        f"  {text.replace(' ', '   ')}\n",
        f"{text} 📷✨",
        f"<b>{text}</b>",
    )[way]


def _score(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 4)
