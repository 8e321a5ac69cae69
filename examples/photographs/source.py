"""The demo's photographs as a source: a web with faults, or a folder of labelled pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples.photographs.coyo import CoyoConfig, make_corpus
from examples.photographs.photograph_folder import PhotographFolder
from examples.photographs.photograph_web import PhotographWeb
from examples.photographs.subjects import SUBJECTS
from examples.photographs.web import TABLE, accounting
from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import ShardJob
from pipelines.dag.stage import Stage
from pipelines.registry import Source


def stages(config: CoyoConfig) -> list[Stage]:
    """The web (artifact "web") and the folder ("pictures")."""
    return [PhotographWeb(config), PhotographFolder(config)]


def tables(config: CoyoConfig) -> Iterable[tuple[str, Any]]:
    """The web's list of URLs, made in memory."""
    yield TABLE, make_corpus(config).table


def serve(download: Any, web: Artifact) -> ShardJob:
    """The download, each of its workers with the web on its own loopback."""
    from examples.photographs.served_download import ServedDownload

    return ServedDownload(download=download, web=web)


SOURCE = Source(
    key="data.photographs",
    config=CoyoConfig,
    stages=stages,
    classes=lambda config: len(SUBJECTS),
    tables=tables,
    served="web",
    serve=serve,
    accounting=accounting,
    conf=Path(__file__).parent / "conf",
)
