"""Three stages that work shard by shard: write words, shout them, sort them by length into two files."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.dag import runner
from pipelines.dag.artifact import Artifact
from pipelines.dag.asking import read_answers
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shard_records import UNCOUNTED
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.tracking import TrackingConfig
from pipelines.dag.wanted import Wanted

ROWS, PATIENCE = 10, 120.0


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Of a stage.

    `faults`: name of a shard -> "raise", "die", "lose". `journal`: a file that is told of each shard done; a
    file for each stage that has done one lies beside it. `waits`: name of a shard -> folder and pattern of
    what must be there before it ends. `wanted`: so many rows are enough. `asks`: words are shouted by a
    processor of rows.
    """

    shards: int = 8
    wanted: int = 0
    seconds: float = insignificant(0.0)
    workers: WorkerResources = insignificant(WorkerResources(workers=2, cpus=1))
    faults: str = insignificant("{}")
    waits: str = insignificant("{}")
    journal: str = insignificant("")
    setup_fault: str = insignificant("")
    whole: bool = insignificant(False)
    asks: bool = insignificant(False)


@dataclass(frozen=True)
class ToyJob(ShardJob):
    config: ToyConfig
    stage: str
    source: Artifact | None = None

    def setup(self):
        if self.config.setup_fault:
            raise OSError(self.config.setup_fault)

    def lines(self, shard):
        if self.source is None:
            return [f"{'a' * (number % 3 + 1)}{shard.index}" for number in range(shard.rows)]
        with self.source.open(shard.payload["file"]) as file:
            return file.read().decode().split()

    def __call__(self, shard, out):
        begun, fault = time.time(), json.loads(self.config.faults).get(shard.name)
        if fault == "raise":
            raise RuntimeError("the ink ran out")
        if fault == "die":
            os._exit(1)
        lines = self.lines(shard)
        object.__setattr__(self, "out", out)
        time.sleep(self.config.seconds)
        self.wait(*json.loads(self.config.waits).get(shard.name, ()))
        kept = self.kept(shard, lines)
        for name, part in self.parts(shard, kept).items():
            out.write_bytes(name, "\n".join(part).encode())
        if self.config.journal:
            entry = json.dumps([self.stage, shard.name, begun, time.time(), os.getpid()])
            with open(self.config.journal, "a") as journal:
                journal.write(f"{entry}\n")
            Path(f"{self.config.journal}.{self.stage}").touch()
        lost = fault == "lose"
        return {"rows_in": len(lines), "rows_out": len(kept) - lost, "dropped_long": len(lines) - len(kept)}

    def wait(self, folder="", pattern=""):
        end = time.monotonic() + PATIENCE
        while folder and not list(Path(folder).glob(pattern)):
            if time.monotonic() > end:
                raise TimeoutError(f"there is no {folder}/{pattern}")
            time.sleep(0.05)

    def absent(self, shard, out):
        for name in self.files_of(shard):
            out.write_bytes(name, b"")

    def rows_of(self, shard):
        return len(self.lines(shard))


class WriteJob(ToyJob):
    def kept(self, shard, lines):
        return lines

    def parts(self, shard, kept):
        return {self.files_of(shard)[0]: kept}

    def files_of(self, shard):
        return (f"words-{shard.index:05d}.txt",)


class ShoutJob(ToyJob):
    @property
    def asking(self):
        if not self.config.asks:
            return None
        from toy_asking import AskLoud  # what it imports is large

        return AskLoud(self)

    def kept(self, shard, lines):
        if not self.config.asks:
            return [line.upper() for line in lines if not line.startswith("aaa")]
        answers = [answer["said"] for answer in read_answers(shard.index, self.out)]
        assert len(answers) == len(lines)
        said = zip(lines, answers, strict=True)
        return [
            word.upper() if answer == "hoarse" else answer for word, answer in said if answer != "too long"
        ]

    def parts(self, shard, kept):
        names = self.files_of(shard)
        return {
            names[0]: [k for k in kept if not k.startswith("AA")],
            names[1]: [k for k in kept if k[:2] == "AA"],
        }

    def files_of(self, shard):
        return tuple(f"{kind}-{shard.index:05d}.txt" for kind in ("short", "tall"))


class CountJob(ToyJob):
    def kept(self, shard, lines):
        return lines

    def parts(self, shard, kept):
        return {self.files_of(shard)[0]: [str(len(kept)), *kept]}

    def files_of(self, shard):
        return (f"{shard.name}.json",)


class ToyStage(ShardStage):
    """What the three have in common; `journal` knows when they planned and finished."""

    def __init__(self, config):
        super().__init__(config)
        self.by_shard = () if config.whole else self.inputs

    def finish(self, inputs, out, work, stats):
        out.write_json("index.json", {"stats": dict(stats), "made_of": [a.digest for a in inputs.values()]})
        return stats

    def planned(self, shards, kind, source=None):
        config = self.config
        wanted = Wanted(config.wanted) if config.wanted else None
        job = kind(config, self.name, source)
        return ShardWork(shards=shards, job=job, workers=config.workers, wanted=wanted)


class Write(ToyStage):
    name, output = "write", "words"

    def work(self, inputs, out):
        shards = [Shard(i, f"words-{i:05d}", ROWS, {}) for i in range(self.config.shards)]
        return self.planned(shards, WriteJob)


class Shout(ToyStage):
    name, inputs, output = "shout", ("words",), "shouts"

    def work(self, inputs, out):
        names = inputs["words"].files("words-*.txt")
        shards = [Shard(i, f"shout-{i:05d}", UNCOUNTED, {"file": name}) for i, name in enumerate(names)]
        return self.planned(shards, ShoutJob, inputs["words"])


class Count(ToyStage):
    """Of each shard of its input it makes two: all short ones, then all tall ones."""

    name, inputs, output = "count", ("shouts",), "counts"

    def work(self, inputs, out):
        files = inputs["shouts"].files
        shards = []
        for kind in (0, 1):
            for name in files("tall-*.txt" if kind else "short-*.txt"):
                place, own = int(name[-9:-4]), {"file": name}
                index = 2 * place + kind
                shards.append(Shard(index, name.removesuffix(".txt"), UNCOUNTED, own, follows=place))
        return self.planned(shards, CountJob, inputs["shouts"])


def stages(write=None, shout=None, count=None, **every):
    """The three, each with settings of its own and those of every one."""
    kinds = ((Write, write), (Shout, shout), (Count, count))
    return [kind(ToyConfig(**{**every, **(own or {})})) for kind, own in kinds]


def run(chosen, root, *, cpus=4, **options):
    """Run without tracking; name -> result."""
    results = runner.run(
        chosen,
        root=str(root),
        cluster=options.pop("cluster", None) or ClusterConfig(num_cpus=cpus),
        tracking=TrackingConfig(enabled=False),
        **options,
    )
    return {result.name: result for result in results}


def actions(results):
    return {name: result.action for name, result in results.items()}


def digests(results):
    return {name: result.artifact.digest for name, result in results.items() if result.artifact}


def journal_of(path):
    """[stage, shard, begun, ended, pid] of each shard done, in the order of their ends."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def drive(root, address, workers, way, seconds, journal="", shards=8, wanted=0):
    """Run the three, in a chain or each alone, on a cluster that is there or on one's own."""
    need = WorkerResources(workers=int(workers), cpus=0.25)
    enough = {"wanted": int(wanted)}
    chosen = stages(enough, shards=int(shards), seconds=float(seconds), workers=need, journal=journal)
    place = ClusterConfig(address=address or None, num_cpus=4)
    results = run(chosen, root, cluster=place, chain=way == "chain")
    return 1 if any(result.error for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(drive(*sys.argv[1:]))
