"""Stage emoji_pictures: plain and composed pictures of emoji with their captions, as two parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pyarrow.parquet as pq

from examples.emoji.pictures import digest_of
from examples.emoji.samples import SPLITS, EmojiConfig, table
from pipelines.dag.stage import Artifact, Stage, Workspace


@dataclass(frozen=True, kw_only=True)
class EmojiPicturesConfig:
    """What the stage makes.

    Attributes:
        emoji: Which pictures.
        drawn_from: Digest of our file, or of the font.
    """

    emoji: EmojiConfig
    drawn_from: str


class EmojiPictures(Stage):
    """Draw the pictures.

    train-00000.parquet   `image` (PNG), `caption`, and what the picture shows (`samples.truth`)
    val-00000.parquet     the held-out ones

    A sample of the dataset that is made of them names its row (`file`: "train-00000.parquet:17").
    """

    name, inputs, output, version = "emoji_pictures", (), "emoji", 1

    def __init__(self, config: EmojiConfig) -> None:
        super().__init__(EmojiPicturesConfig(emoji=config, drawn_from=digest_of(config.font)))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        stats = {}
        for split in SPLITS:
            rows = table(self.config.emoji, split)
            with out.create(f"{split}-00000.parquet") as file:
                pq.write_table(rows, cast(Any, file))
            stats[f"{split}_rows"] = float(rows.num_rows)
        return {"rows_out": sum(stats.values()), **stats}
