"""Download bombs in this process and print, as JSON, what became of them: explode.py FOLDER SETTINGS."""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: Path, settings: dict[str, Any]) -> None:
    from pipelines.crawl.durations import percentile
    from pipelines.crawl.guarded import GuardedDownload
    from pipelines.dag.shards import Shard
    from pipelines.dag.workspace import Workspace
    from reptok.data import columns

    here = Path(__file__).parent
    test, web = load(here / "test_hostile_web.py"), load(here.parents[1] / "fixtures" / "hostile_web.py")
    pages = test.bombs(web)
    good = test.io.BytesIO()
    Image.new("RGB", (300, 300), "teal").save(good, "JPEG")
    server = web.HostileWeb({path: page for path, (page, _) in pages.items()})
    server.pages["/good.jpg"] = web.answer(200, good.getvalue())
    first = [path for path in pages if not path.startswith("/redirects/") or path.endswith("/0")]
    with server:
        fetch = test.quick(web.ADDRESS, **{"attempt_seconds": 8.0, "total_seconds": 30.0, **settings})

        def run(name: str, urls: list[str]) -> tuple[list[dict[str, Any]], float]:
            out = Workspace(str(folder / name / "images"))
            artifact = test.publish_urls(folder / name, urls)
            job = GuardedDownload(urls=artifact, fetch=fetch, resize=test.RESIZE)
            job(Shard(0, "0", len(urls), {"file": "urls-00000.parquet"}), out)
            with out.folder.open("images-00000.parquet") as file:
                rows = columns.read_table(file, columns.IMAGES, "", ["url", "reason"]).to_pylist()
            return rows, percentile(out.summaries["images-00000.parquet"], 100)

        run("warm", [server.url("/good.jpg")])  # every library is loaded before memory is judged
        before = megabytes()
        rows, slowest = run("bombs", [server.url(path) for path in first])
        expected = {server.url(path): pages[path][1] for path in first}
    print(json.dumps({
        "rows": rows, "slowest": slowest, "expected": expected, "megabytes": megabytes() - before,
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
