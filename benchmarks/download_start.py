"""C2: what a small download costs from its command to its end, all processes together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil

from benchmarks.compare import Comparison
from benchmarks.loopback import photographs, served
from pipelines.dag.workspace import Workspace
from reptok.data import columns

IMAGES, PAIRS = 300, 3
POLL_SECONDS = 0.1

_OURS = """
import sys
from pipelines.dag import cluster
from pipelines.dag.artifact import Artifact
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shards import WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.crawl.limits import FetchConfig
from pipelines.stages.download import Download, DownloadConfig
urls, out, host = sys.argv[1:]
cluster.configure(ClusterConfig(num_cpus=2))
fetch = FetchConfig(
    allow_hosts=(host,), host_rate=0, second_pass_seconds=0, per_host=64, contact="a benchmark"
)
stage = Download(DownloadConfig(fetch=fetch, workers=WorkerResources(workers=1)))
stats = stage.run({"urls": Artifact("urls", "0", urls)}, Workspace(out, "0"))
cluster.shutdown()
print(int(stats["images_ok"]))
"""
_THEIRS = """
import json, sys
from pathlib import Path
from img2dataset import download
if __name__ == "__main__":
    download(
        url_list=sys.argv[1], output_folder=sys.argv[2], processes_count=1, thread_count=64, image_size=256,
        resize_mode="center_crop", output_format="webdataset", enable_wandb=False,
    )
    print(json.loads(next(Path(sys.argv[2]).glob("*_stats.json")).read_text())["successes"])
"""


def run() -> Comparison:
    """300 photographs over loopback: our stage as a program, and img2dataset's command."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder, "web"), photographs()) as place:
        root = Path(folder)
        urls = [f"http://{place}/{number % len(photographs())}.jpg" for number in range(IMAGES)]
        (root / "urls.txt").write_text("\n".join(urls))
        listed = Workspace(str(root / "urls" / "0"))
        with listed.create("urls-00000.parquet") as file:
            keys = [f"{number:012d}" for number in range(IMAGES)]
            rows = {"key": keys, "url": urls}
            columns.write_table(file, rows, columns.URLS)  # type: ignore[arg-type]
        listed.publish({})
        theirs_program = root / "theirs.py"  # a file: its worker processes import it again
        theirs_program.write_text(_THEIRS)
        ours, theirs = [], []
        for pair in range(PAIRS):
            out = str(root / "images" / str(pair))
            ours.append(_cpu_seconds([sys.executable, "-c", _OURS, listed.url, out, place.split(":")[0]]))
            command = [sys.executable, str(theirs_program), str(root / "urls.txt"), str(root / f"out{pair}")]
            theirs.append(_cpu_seconds(command))
    return Comparison(
        name=f"C2 a whole download of {IMAGES} images, from command to end",
        ours=median(ours),
        peer="img2dataset's command",
        theirs=median(theirs),
        ratio=median(b / a for a, b in zip(ours, theirs, strict=True)),
        checked="all images; every process of both, by psutil",
    )


def _cpu_seconds(command: Sequence[str]) -> float:
    """CPU-seconds of a command and of every process below it that lives for a tenth of a second."""
    spent: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            for member in _family(process.pid):
                try:
                    times = member.cpu_times()
                    spent[member.pid] = times.user + times.system
                except psutil.Error:
                    pass
            time.sleep(POLL_SECONDS)
        said.seek(0)
        lines = said.read().split()
    if process.returncode or not lines or lines[-1] != str(IMAGES):
        raise RuntimeError(f"{command[:2]} ended with {process.returncode} and {lines[-1:]} images")
    return sum(spent.values())


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []
