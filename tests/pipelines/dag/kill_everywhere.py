"""Kill a run of toy stages at every file system call, and look at what is left.

`python kill_everywhere.py FOLDER SCENARIO` prints {"points": n, "faults": [...]}. A hook counts the
calls that change something while the engine locks, writes, syncs, renames, moves and removes; a forked child
is killed (SIGKILL) before the n-th one, for every n until a child comes through unharmed.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from toy_stages import Toy, contents, run

from pipelines.dag.revision import git_commit
from pipelines.dag.verify import published_artifacts, verify

CALLS = {
    "open",
    "write",
    "flush",
    "fsync",
    "replace",
    "rename",
    "mkdir",
    "unlink",
    "rmdir",
    "close",
    "__exit__",
}
CALLS |= {"flock", "truncate"}
FILES = ("pipelines/dag/", "/os.py", "/shutil.py", "/pathlib.py")


def stages():
    return [Toy("a"), Toy("b", ("a_out",))]


def killing_at(point):
    seen = [0]

    def hook(frame, event, argument):
        watched = event == "c_call" and argument.__name__ in CALLS
        if watched and any(part in frame.f_code.co_filename for part in FILES):
            seen[0] += 1
            if seen[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def child(work):
    """Run `work` in a forked process; its exit status, negative if it was killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
                work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_run(root, point, **options):
    def work():
        threading.setprofile(killing_at(point))
        sys.setprofile(threading.getprofile())
        run(stages(), root, **options)

    return child(work)


def sweep(folder, options, times):
    git_commit()  # asked once, here, and not by every child
    reference = str(folder / "reference")
    child(lambda: run(stages(), reference))
    expected, faults, point, root = contents(reference), [], 0, str(folder / "store")
    while True:
        point += 1
        shutil.rmtree(root, ignore_errors=True)
        if options:
            shutil.copytree(reference, root)
        statuses = [killed_run(root, point, **options) for _ in range(times)]
        trusted = contents(root)
        for artifact in published_artifacts(root):
            for name in artifact.files():
                key = f"{artifact.kind}/{artifact.fingerprint}/{name}"
                if trusted.get(key) != expected[key]:
                    faults.append(f"{point}: {key} is published with other bytes")
        if child(lambda: run(stages(), root)) != 0:
            faults.append(f"{point}: the next run failed")
        if contents(root) != expected:
            faults.append(f"{point}: the next run ended with other bytes: {sorted(contents(root))}")
        faults += [f"{point}: {line}" for line in verify(root)]
        left = [str(p) for p in Path(root).rglob("*") if p.suffix == ".part" or p.name == "_scratch"]
        faults += [f"{point}: {path} was left behind" for path in left]
        if statuses[0] == 0:
            return {"points": point, "faults": faults}


if __name__ == "__main__":
    scenario = {"fresh": ({}, 1), "twice": ({}, 2), "force": ({"force": "a"}, 1)}[sys.argv[2]]
    print(json.dumps(sweep(Path(sys.argv[1]), *scenario)))
