"""Stage caption: a caption for every image that was downloaded, and where it comes from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar

from pipelines.captions.alt_text import clean_alt_text
from pipelines.captions.caption import CaptionerConfig, choose, drawn
from pipelines.captions.gates import repeated_captions
from pipelines.captions.images import CaptionImages
from pipelines.captions.joined import JoinedTexts
from pipelines.captions.vllm import Answered, VllmCaptions
from pipelines.crawl.reasons import CLASSES
from pipelines.dag.artifact import Artifact
from pipelines.dag.asking import read_answers
from pipelines.dag.earlier import Made, sibling
from pipelines.dag.op import Batch
from pipelines.dag.reference import fetch, located, refer
from pipelines.dag.rows import RowErrors, drop_reason
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork
from pipelines.dag.wanted import Wanted
from pipelines.dag.workspace import Workspace
from pipelines.filters.judging import REASONS
from pipelines.filters.verdicts import Verdicts
from pipelines.stages.tables import beside, occupied, table_rows, table_shards
from reptok.data.columns import CAPTIONS, IMAGES, SUCCESS, iterate_rows, read_table, write_table

Row = dict[str, Any]

ROWS_PER_BATCH = 256
READERS = 16


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Who writes captions, and which an image gets."""

    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)


@dataclass(frozen=True)
class CaptionJob(ShardJob):
    """Caption the successful rows of one table of images.

    Attributes:
        images: The tables.
        config: The captioner, its model's path resolved.
        model: What the captions' provenance calls the model; None without one. By vLLM, it looks at the
            pictures of a shard before that is done.
        texts: Captions by URL that take the alt-texts' place, as `index_captions` made them.
        verdicts: Which images are passed on; all of them without.
    """

    reasons: ClassVar[frozenset[str]] = CLASSES | REASONS | {"captioner_failed", "no_image"}

    images: Artifact
    config: CaptionerConfig
    model: str | None
    texts: Artifact | None = None
    verdicts: Artifact | None = None
    joined: JoinedTexts | None = field(default=None, init=False, compare=False)
    op: CaptionImages | None = field(default=None, init=False, compare=False)
    seen: tuple[int, str] | None = field(default=None, init=False, compare=False)  # tile, revision

    @property
    def asking(self) -> VllmCaptions | None:
        """Whom it asks, unless it loads the model itself."""
        vllm = self.config.model is not None and self.config.model.backend == "vllm"
        return VllmCaptions(self.config, self.pictures) if vllm else None

    def setup(self) -> None:
        """Load the model, and open the captions of another table."""
        if self.texts is not None:
            object.__setattr__(self, "joined", JoinedTexts(self.texts.local_path()))
        if asking := self.asking:
            object.__setattr__(self, "seen", asking.seen())
        elif self.model is not None:
            object.__setattr__(self, "op", CaptionImages(self.config))
            assert self.op is not None
            self.op.setup()
            captioner = self.op.captioner
            object.__setattr__(self, "seen", (captioner.tile_size, captioner.revision))

    def pictures(self, shard: Shard) -> Iterator[tuple[str, bytes | None]]:
        """Keys and files of the pictures at which the model is to look."""
        errors = RowErrors(shard.name, self.rows_of(shard))
        for row in self._rows(shard, Counter(), files=True):
            (row,) = self._cleaned([row], errors)
            if _wanted(row):
                yield row["key"], row["jpg"]

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `captions-{i}.parquet` beside `images-{i}.parquet`."""
        stats: Counter[str] = Counter(rows_in=0, rows_out=0)
        source_rows = self._rows(shard, stats, files=self.op is not None)
        look = Answered(self.config, read_answers(shard.index, out)) if self.asking else self.op
        rows: list[Row] = []
        errors, written = RowErrors(shard.name, self.rows_of(shard)), self._written(shard, out)
        while part := list(islice(source_rows, ROWS_PER_BATCH)):
            known = {row["key"]: written[row["key"]] for row in part if row["key"] in written}
            fresh = _look(look, self._cleaned([row for row in part if row["key"] not in known], errors))
            looked = {row["key"]: row for row in fresh}
            rows += [known.get(row["key"]) or looked[row["key"]] for row in part]
        self._judge([row for row in rows if row["key"] not in written], stats, len(rows))
        provenance = self._provenance()
        for row in rows:
            if row["key"] in written:
                stats["rows_reused"] += 1
            else:
                row["caption"], row["source"], row["reason"] = choose(row, self.config.fallback)
                row |= provenance if row["generated"] else {}
            stats["rows_out"] += 1
            stats[f"caption_{row['source']}"] += 1
            if row["reason"]:
                stats[f"instead_of_{row['reason']}"] += 1
        with out.create(beside(shard, "captions")) as table:
            target: Any = table
            write_table(target, {name: [row.get(name) for row in rows] for name in CAPTIONS.names}, CAPTIONS)
        return dict(stats)

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Write a table without rows: those images have no caption."""
        with out.create(beside(shard, "captions")) as table:
            target: Any = table
            write_table(target, [], CAPTIONS)

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """The tables of images and verdicts."""
        made: list[Made] = [(self.images, shard.payload["file"])]
        if self.verdicts:
            made.append((self.verdicts, beside(shard, "verdicts")))
        return made

    def _written(self, shard: Shard, out: Workspace) -> dict[str, Row]:
        """By key, rows of an earlier table of this name whose pictures and alt-texts are the same now."""
        last = out.earlier.holding(beside(shard, "captions")) if out.earlier else None
        if last is None or self.asking:  # answers have been asked for all rows by now
            return {}
        name, kind = shard.payload["file"], self.images.kind
        before = sibling(last, kind)
        if before is None or name not in before.files():
            return {}
        seen = [_pictures(images, name) for images in (before, self.images)]
        with last.open(beside(shard, "captions")) as file:
            rows = read_table(file, CAPTIONS, beside(shard, "captions"), CAPTIONS.names).to_pylist()
        return {row["key"]: row for row in rows if seen[0].get(row["key"]) == seen[1].get(row["key"])}

    def rows_of(self, shard: Shard) -> int:
        """Rows of the table of images."""
        return table_rows(self.images, shard)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The table of captions."""
        return (beside(shard, "captions"),)

    def _rows(self, shard: Shard, stats: Counter[str], *, files: bool) -> Iterator[Row]:
        """The successful rows; the others are counted."""
        name = shard.payload["file"]
        columns = ["key", "text", "split", "status", "reason"]
        columns += ["jpg"] if files else []
        columns += ["url"] if self.joined else []
        verdicts = Verdicts(self.verdicts, shard) if self.verdicts else None
        with self.images.open_whole(name) if files else self.images.open(name) as file:
            for row in iterate_rows(file, IMAGES, name, columns):
                stats["rows_in"] += 1
                if row["status"] != SUCCESS:
                    stats[drop_reason(row["reason"], "failed")] += 1
                elif verdicts and (refusal := verdicts.refusal(row["key"])):
                    stats[f"dropped_{refusal}"] += 1
                else:
                    if self.joined and (text := self.joined.get((row["url"],))) is not None:
                        row["text"] = text
                        stats["captions_joined"] += 1
                    yield row

    def _cleaned(self, rows: list[Row], errors: RowErrors) -> list[Row]:
        """Rows with their cleaned alt-text or why there is none, and with what the mix drew."""
        config = self.config
        for row in rows:
            try:
                text, row["alt_reason"] = clean_alt_text(row["text"], config.alt_text)
            except Exception as error:
                text, row["alt_reason"] = "", errors.reason(row["key"], error)
            row["alt_text"] = text or None
            own = config.val_mix if row["split"] == "val" else None
            row["model_first"] = drawn(config.seed, row["key"]) < (config.mix if own is None else own)
        return rows

    def _judge(self, rows: list[Row], stats: Counter[str], whole: int) -> None:
        """Refuse what too many images share, count refusals, and give up where the model does not work.

        Args:
            rows: those at which the model looked now.
            stats: of the shard.
            whole: rows of the shard, with those that an earlier table had.
        """
        looked = sum(bool(row["generated"] or row["failure"]) for row in rows)
        failed = sum(row["failure"] == "captioner_failed" for row in rows)
        if failed > max(1, self.config.max_failed * (looked + whole - len(rows))):
            raise RuntimeError(
                f"the captioner failed on {failed} of {looked} images (the worker's log has the errors); "
                "that is more than captioner.max_failed allows"
            )
        passed = [{c["text"] for c in row["generated"] if c["reason"] is None} for row in rows]
        repeated = repeated_captions([text for own in passed for text in own], looked, self.config.gates)
        for row in rows:
            for caption in row["generated"]:
                if caption["reason"] is None and caption["text"] in repeated:
                    caption["reason"] = "repeated"
                stats["generated"] += 1
                if caption["reason"]:
                    stats[f"refused_{caption['reason']}"] += 1
            if row["failure"]:
                stats[f"failed_{row['failure']}"] += 1

    def _provenance(self) -> dict[str, str]:
        """Columns `model`, `revision` and `decoding` (JSON) of this job's captions."""
        if self.seen is None or self.model is None or self.config.model is None:
            return {}
        settings, (tile, revision) = self.config.model, self.seen
        decoding = {
            "backend": settings.backend,
            "precision": self.config.compute.precision,
            "tile": tile,
            "max_tiles": settings.max_tiles,
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        return {"model": self.model, "revision": revision, "decoding": json.dumps(decoding, sort_keys=True)}


def _wanted(row: Row) -> bool:
    """Whether the model's caption of a row may be wanted."""
    return bool(row["model_first"] or not row["alt_text"])


def _look(op: Callable[[Batch], Batch] | None, rows: list[Row]) -> list[Row]:
    """Rows without pixels, but with what the model wrote where its caption may be wanted."""
    files = [row.pop("jpg", None) for row in rows]
    for row in rows:
        row |= {"generated": [], "failure": None}
    wanted = [i for i, row in enumerate(rows) if _wanted(row)] if op is not None else []
    if op is not None and wanted:
        found = op({"key": [rows[i]["key"] for i in wanted], "jpg": [files[i] for i in wanted]})
        for i, generated, failure in zip(wanted, found["generated"], found["failure"], strict=True):
            rows[i] |= {"generated": generated, "failure": failure}
    return rows


class Caption(ShardStage):
    """Give every downloaded image a caption; failed rows are counted by their reason."""

    name, output, version = "caption", "captions", 4
    inputs: tuple[str, ...] = ("images",)
    by_shard = ("images", "verdicts")
    apart = ("captioner.limit_samples",)

    def __init__(self, config: CaptionConfig, joined: bool = False, judged: bool = False):
        """Caption `images`.

        Args:
            config: The captioner.
            joined: Take captions by URL from the artifact `texts`, where it has them.
            judged: Caption those alone that the artifact `verdicts` passes on.
        """
        self.inputs = ("images", *(("texts",) if joined else ()), *(("verdicts",) if judged else ()))
        super().__init__(config)
        self.resources = occupied(config.captioner.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each table of images."""
        images, config = inputs["images"], self.config.captioner
        name = None
        if config.model is not None:
            key = "captioner.model.path"
            made = refer(config.model.path, key).artifact
            name = f"{made}/{inputs[made].fingerprint}" if made else config.model.path
            commit = fetch(config.model, key) or config.model.revision
            model = replace(located(config.model, inputs, key), revision=commit)
            config = replace(config, model=model)
        job = CaptionJob(images, config, name, inputs.get("texts"), inputs.get("verdicts"))
        wanted = Wanted(config.limit_samples) if config.limit_samples else None
        return ShardWork(shards=table_shards(images), job=job, workers=config.workers, wanted=wanted)


def _pictures(images: Artifact, name: str) -> dict[str, tuple[Any, ...]]:
    """By key what a caption depends on: the picture's digest, the text, and the split with its own mix."""
    columns = ["key", "sha256", "text", "split"]
    with images.open(name) as file:
        rows = read_table(file, IMAGES, name, columns).to_pylist()
    return {row["key"]: tuple(row[column] for column in columns) for row in rows}
