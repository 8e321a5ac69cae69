"""Stages that write small text files, and a command line over them for tests that kill processes."""

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.dag import runner
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.stage import Resources, Stage
from pipelines.dag.tracking import TrackingConfig

CALLS: list[str] = []  # names of the stages that ran, in this process
NO_TRACKING = TrackingConfig(enabled=False)


@dataclass(frozen=True, kw_only=True)
class Nested:
    depth: int = 4


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    text: str = "x"
    decoder: Nested = Nested()
    workers: int = insignificant(2)


class Toy(Stage):
    """Writes two files made of its text and its inputs; `action` is called in between."""

    def __init__(self, name, inputs=(), *, output=None, config=None, action=None, cpus=1.0, version=1):
        super().__init__(config or ToyConfig(text=name))
        self.name, self.inputs, self.output = name, tuple(inputs), output or f"{name}_out"
        self.resources = Resources(cpus=cpus)
        self.version = version
        self.action = action or (lambda: "")

    def run(self, inputs, out):
        CALLS.append(self.name)
        read = [inputs[kind].read_bytes("0.txt").decode() for kind in self.inputs]
        text = f"{self.config.text}({','.join(read)})"
        out.write_bytes("0.txt", text.encode())
        text += str(self.action() or "")
        out.write_bytes("nested/1.txt", text.encode())
        return {"characters": len(text)}


def diamond(**configs):
    """a -> b, c -> d."""

    def config(name):
        return configs.get(name) or ToyConfig(text=name)

    return [
        Toy("d", ("b_out", "c_out"), config=config("d")),
        Toy("b", ("a_out",), config=config("b")),
        Toy("c", ("a_out",), config=config("c")),
        Toy("a", config=config("a")),
    ]


def run(stages, root, **options):
    """Run without tracking; returns name -> action."""
    options.setdefault("cluster", ClusterConfig(num_cpus=4))
    results = runner.run(stages, root=root, tracking=NO_TRACKING, **options)
    return {result.name: result.action for result in results}


def contents(root):
    """Every published file's bytes, without manifests, scratch and locks."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith("_") and "_scratch" not in name:
            found[name] = path.read_bytes()
    return {name: data for name, data in found.items() if not name.endswith("manifest.json")}


class Barrier:
    """Lets stages go on only when `parties` of them are inside at once."""

    def __init__(self, parties):
        self._barrier = threading.Barrier(parties)

    def __call__(self):
        self._barrier.wait(timeout=30)
        return ""


def main(root, journal, seconds):
    """One slow stage that writes a line into a journal each time it runs."""

    def slow():
        with open(journal, "a") as file:
            file.write("ran\n")
        time.sleep(float(seconds))

    return 1 if "failed" in run([Toy("slow", action=slow)], root).values() else 0


if __name__ == "__main__":
    from pipelines.run_all import command

    command(lambda: main(*sys.argv[1:]))
