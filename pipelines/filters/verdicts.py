"""The verdicts on a table of images, for whoever passes its pictures on."""

from __future__ import annotations

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard
from reptok.data.columns import VERDICTS, read_table

UNJUDGED = "no_verdict"
"""Why a picture is not passed on that has none: its shard was given up."""

EXCLUDED, REVIEW = "excluded.parquet", "review.parquet"
"""Files beside the verdicts: kept pictures with an earlier twin in another table; quarantined ones."""


def verdict_table(images_table: str) -> str:
    """Return the table of verdicts on a table of images."""
    return f"verdicts-{images_table.partition('-')[2]}"


class Verdicts:
    """What was said of the pictures of one table."""

    def __init__(self, verdicts: Artifact, shard: Shard) -> None:
        """Read the table of a shard of `images`."""
        name = verdict_table(shard.payload["file"])
        with verdicts.open(name) as file:
            table = read_table(file, VERDICTS, name)
        self._rows = {row["key"]: row for row in table.to_pylist()}
        self.scores = tuple(name for name in table.column_names if name not in VERDICTS.names)

    @property
    def passed(self) -> int:
        """How many pictures may be passed on."""
        return sum(row["kept"] for row in self._rows.values())

    def refusal(self, key: str) -> str | None:
        """Why the picture of a key is not to be passed on; None if it may be."""
        row = self._rows.get(key)
        if row is None:
            return UNJUDGED
        return None if row["kept"] else row["reason"]

    def scores_of(self, key: str) -> dict[str, float]:
        """Its scores, as far as it has them."""
        row = self._rows.get(key, {})
        return {name: row[name] for name in self.scores if row.get(name) is not None}
