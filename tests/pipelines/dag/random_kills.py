"""Seeded random kills of driver, worker and raylet of a shard job or a chain, until so many have struck.

    python random_kills.py KILLS [SEED [words|chain]]

prints {"kills": {...}, "runs": n, "seconds": s, "faults": [...]}. A keeper process holds a Ray cluster;
drivers join it and run one stage of small shards, or the three of `toy_chain`, most often as a chain, with
1, 2 or 4 workers and one or several shards to a Ray block. At random moments a process is killed (SIGKILL);
the same work is started again until it is published, and its bytes are compared with those of an undisturbed
run.
"""

import contextlib
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import toy_chain
from toy_stages import contents

from pipelines.dag import runner
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.tracking import TrackingConfig

SHARDS, WORDS, SECONDS = 24, 40, 0.2
KINDS = ("worker",) * 15 + ("driver",) * 4 + ("raylet",)
LONGEST_RUN = 240.0
ATTEMPTS, STRUCK_ATTEMPTS = 12, 9  # a run that is struck is started again, the last times in peace


@dataclass(frozen=True)
class Shout(ShardJob):
    """Write each word in capitals, in two files; slow enough to be struck."""

    def __call__(self, shard, out):
        words = [f"word {shard.index} {number}" for number in range(shard.rows)]
        with out.create(f"{shard.name}.txt") as file:
            for word in words[: len(words) // 2]:
                file.write(f"{word.upper()}\n".encode())
            time.sleep(SECONDS / 2)
            for word in words[len(words) // 2 :]:
                file.write(f"{word.upper()}\n".encode())
        time.sleep(SECONDS / 2)
        out.write_json(f"{shard.name}.json", {"words": len(words)})
        return {"rows_in": shard.rows, "rows_out": shard.rows}


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    workers: int = insignificant(2)


class Words(Stage):
    name, output = "shout", "words"

    def run(self, inputs, out):
        shards = [Shard(i, f"text-{i:05d}", WORDS, {}) for i in range(SHARDS)]
        stats = map_shards(shards, Shout(), out, WorkerResources(workers=self.config.workers, cpus=0.5))
        out.write_json("index.json", stats)
        return stats


def keep():
    """Hold a cluster until the input ends; its address is the first line of the output."""
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], str(Path(__file__).parents[3])])
    context = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False,
                       object_store_memory=100 * 2**20)  # fmt: skip
    print(context.address_info["gcs_address"], flush=True)
    sys.stdin.read()


FILES = {"words": 2 * SHARDS + 1, "chain": 5 * SHARDS + 3}


def drive(root, address, workers, shards_per_block, kind):
    """Run the stage, or the stages, on the keeper's cluster."""
    import ray.data

    from_items = ray.data.from_items
    ray.data.from_items = lambda rows, override_num_blocks: from_items(
        rows, override_num_blocks=-(-len(rows) // int(shards_per_block))
    )
    if kind != "words":
        return toy_chain.drive(root, address, workers, kind, SECONDS, shards=SHARDS)
    results = runner.run(
        [Words(WordsConfig(workers=int(workers)))],
        root=root,
        cluster=ClusterConfig(address=address, num_cpus=4),
        tracking=TrackingConfig(enabled=False),
    )
    return 0 if results[0].action != "failed" else 1


class Cluster:
    """The keeper, started again after its raylet was killed."""

    def __init__(self):
        self.process = None

    def address(self):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "keep"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            self.known = self.process.stdout.readline().strip()
            while self.known and ":" not in self.known:
                self.known = self.process.stdout.readline().strip()
        return self.known

    def find(self, word):
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = process.cmdline()
            except psutil.Error:
                continue
            if line and word in line[0]:
                found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def end(self):
        if self.process is not None:
            alive = self.process.poll() is None
            every = psutil.Process(self.process.pid).children(recursive=True) if alive else []
            for process in [*every, self.process]:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.process.wait()
            self.process = None


def strike(kind, cluster, driver, rng):
    """Kill one process of that kind; whether there was one."""
    if kind == "driver":
        victims = [psutil.Process(driver.pid)] if driver.poll() is None else []
    else:
        victims = cluster.find("raylet" if kind == "raylet" else "ray::Map")
    if not victims:
        return False
    try:
        rng.choice(victims).kill()
    except psutil.Error:
        return False
    return True


class Strikes:
    """What strikes one driver, and when: most after its first shard is done, some before."""

    def __init__(self, root, rng, *, peaceful):
        self.rng, self.root, self.struck = rng, root, []
        early, count = rng.random() < 0.15, rng.choice([2, 4, 6, 8])
        self.early = time.monotonic() + rng.uniform(0.0, 5.0) if early and not peaceful else None
        self.delays = sorted(rng.uniform(0.0, 8.0) for _ in range(0 if peaceful else count))
        self.begun = None

    def strike(self, cluster, driver, counts):
        """Strike if a moment has come."""
        now = time.monotonic()
        if self.early is not None and now >= self.early:
            self.early = None
            self._kill("driver", cluster, driver, counts)
        if self.begun is None and any(self.root.glob("*/*/_scratch/shards/done/*")):
            self.begun = now
        while self.begun is not None and self.delays and now - self.begun >= self.delays[0]:
            self.delays.pop(0)
            self._kill(self.rng.choice(KINDS), cluster, driver, counts)

    def _kill(self, kind, cluster, driver, counts):
        if strike(kind, cluster, driver, self.rng):
            counts[kind] += 1
            self.struck.append(kind)


def start(root, cluster, rng, kind):
    kind = "alone" if kind == "chain" and rng.random() < 0.25 else kind
    arguments = ["drive", root, cluster.address(), str(rng.choice([1, 2, 4])), str(rng.choice([1, 3])), kind]
    log = open(f"{root}.log", "ab")  # noqa: SIM115 (the child holds it)
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=log, stderr=log)


def until_done(driver, work):
    """Wait for a driver, calling `work()` now and then; one that hangs is killed and named."""
    begun = time.monotonic()
    while driver.poll() is None:
        if time.monotonic() - begun > LONGEST_RUN:
            driver.kill()
            driver.wait()
            return False
        work()
        time.sleep(0.02)
    return True


def main(kills, seed=0, kind="words"):
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    rng, counts, faults, runs = random.Random(seed), Counter(), [], 0
    cluster, begun = Cluster(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        reference = f"{folder}/reference"
        driver = start(reference, cluster, rng, kind)
        until_done(driver, lambda: None)
        expected = contents(reference)
        if len(expected) != FILES[kind]:
            raise RuntimeError(Path(f"{reference}.log").read_text()[-2000:])
        while counts.total() < kills:
            runs += 1
            root = f"{folder}/{runs}"
            for attempt in range(ATTEMPTS):
                driver = start(root, cluster, rng, kind)
                plan = Strikes(Path(root), rng, peaceful=attempt >= STRUCK_ATTEMPTS)
                if not until_done(driver, lambda d=driver, p=plan: p.strike(cluster, d, counts)):
                    faults.append(f"run {runs}: a driver hung for {LONGEST_RUN} s, struck: {plan.struck}")
                if not cluster.find("raylet"):
                    cluster.end()
                if driver.returncode == 0:
                    break
            if contents(root) != expected:
                log = Path(f"{root}.log").read_text(errors="replace")[-1500:]
                faults.append(f"run {runs}: other bytes after {attempt + 1} attempts: {log}")
            left = [
                path for path in Path(root).rglob("*") if path.suffix == ".part" or path.name == "_scratch"
            ]
            faults += [f"run {runs}: {path} was left behind" for path in left]
            print(f"{counts.total()} kills in {runs} runs, {len(faults)} faults", file=sys.stderr, flush=True)
        cluster.end()
    seconds = round(time.monotonic() - begun)
    print(json.dumps({"kills": dict(counts), "runs": runs, "seconds": seconds, "faults": faults}))


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        keep()
    elif sys.argv[1] == "drive":
        sys.exit(drive(*sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:3]), *sys.argv[3:])
