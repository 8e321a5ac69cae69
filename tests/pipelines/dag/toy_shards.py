"""A shard job over text, and a command line that a test kills in the middle of it."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.dag import cluster
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.workspace import Workspace

COUNT, ROWS = 6, 10


@dataclass(frozen=True)
class Shout(ShardJob):
    """Writes each word in capitals; drops the empty ones.

    Attributes:
        journal: file that gets the name of every shard done, one a line.
        faults: shard name -> what happens there: "raise", "once" (raise the first time), "first process"
            (raise in the first process that meets it), "die" or "lose" a row.
        setup_fault: what no worker can set up; "" for nothing.
        sick: shard whose first process fails from then on.
        kill: driver to kill when so many shards are in the journal.
    """

    journal: str
    faults: str = "{}"
    kill: tuple[int, int] = (0, 0)
    setup_fault: str = ""
    sick: str = ""

    def setup(self):
        if self.setup_fault:
            raise OSError(self.setup_fault)

    def absent(self, shard, out):
        out.write_bytes(f"{shard.name}.txt", b"given up")

    def fall_sick(self, shard):
        """Fail in the process that was the first to meet the sick shard."""
        place = Path(f"{self.journal}.sick")
        if shard.name == self.sick and not place.exists():
            place.write_text(str(os.getpid()))
        if self.sick and place.exists() and place.read_text() == str(os.getpid()):
            Path(f"{self.journal}.{shard.name}.sick").touch()
            raise RuntimeError("the hand shakes")

    def __call__(self, shard, out):
        fault = json.loads(self.faults).get(shard.name)
        self.fall_sick(shard)
        tries = Path(f"{self.journal}.{shard.name}.tries")
        met = tries.read_text().split() if tries.exists() else []
        tries.write_text(" ".join([*met, str(os.getpid())]))
        if fault == "first process" and [*met, str(os.getpid())][0] == str(os.getpid()):
            raise RuntimeError("not here")
        first = not Path(f"{self.journal}.{shard.name}").exists()
        Path(f"{self.journal}.{shard.name}").touch()
        if fault == "raise" or (fault == "once" and first):
            raise RuntimeError("the ink ran out")
        if fault == "die":
            os._exit(1)
        words = shard.payload["words"]
        kept = [word.upper() for word in words if word]
        with out.create(f"{shard.name}.txt") as file:
            file.write("\n".join(kept).encode())
        with open(self.journal, "a") as journal:
            journal.write(f"{shard.name}\n")
        pid, after = self.kill
        if pid and len(Path(self.journal).read_text().split()) >= after:
            os.kill(pid, signal.SIGKILL)
            time.sleep(60)
        lost = 1 if fault == "lose" else 0
        return {"rows_in": len(words), "rows_out": len(kept) - lost, "dropped_empty": len(words) - len(kept)}


def shards(count=COUNT):
    words = [[f"word {i} {j}" if j % 5 else "" for j in range(ROWS)] for i in range(count)]
    return [Shard(i, f"text-{i:05d}", ROWS, {"words": words[i]}) for i in range(count)]


def map_words(url, journal, workers=2, **settings):
    return map_shards(
        shards(), Shout(str(journal), **settings), Workspace(url), WorkerResources(workers=workers, cpus=1)
    )


if __name__ == "__main__":
    cluster.configure(ClusterConfig(num_cpus=2))
    map_words(sys.argv[1], sys.argv[2], kill=(os.getpid(), 3))
