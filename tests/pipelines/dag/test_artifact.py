"""What identifies an artifact, how its files appear, and how damage is found."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_stages import Nested, Toy, ToyConfig, run

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import fingerprint, insignificant, plain
from pipelines.dag.planner import plan
from pipelines.dag.storage import checked_name, open_folder
from pipelines.dag.verify import main as verify_main
from pipelines.dag.verify import verify
from pipelines.dag.workspace import Workspace
from pipelines.dag.writing import StorageError


@pytest.fixture
def published(root):
    run([Toy("a"), Toy("b", ("a_out",))], root)
    return plan([Toy("a"), Toy("b", ("a_out",))], root)[0].artifact


def test_the_fingerprint_is_a_function_of_what_matters():
    def of(name="s", version=1, config=None, **inputs):
        return fingerprint(name, version, config or ToyConfig(), inputs)

    base = of(a="1")
    assert len(base) == 16 and base == of(a="1") and base == of(a="1", config=ToyConfig(workers=9))
    others = [
        of("t", a="1"),
        of(version=2, a="1"),
        of(a="2"),
        of(b="1"),
        of(a="1", config=ToyConfig(text="y")),
    ]
    others.append(of(a="1", config=ToyConfig(decoder=Nested(depth=5))))
    assert len({base, *others}) == len(others) + 1


def test_insignificant_fields_are_left_out_at_any_depth():
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        kept: tuple[int, ...] = (1, 2)
        left: str = insignificant("x")

    @dataclass(frozen=True, kw_only=True)
    class Outer:
        inner: Inner = Inner()
        table: Inner = insignificant(factory=Inner)

    assert plain(Outer(), significant_only=True) == {"inner": {"kept": [1, 2]}}
    assert plain(Outer())["table"] == {"kept": [1, 2], "left": "x"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_config_value_must_be_finite(value):
    with pytest.raises(ValueError, match="finite"):
        plain({"lr": value})


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\\b", "."])
def test_names_stay_inside_the_folder(name):
    with pytest.raises(ValueError, match="relative file name"):
        checked_name(name)


@pytest.mark.parametrize("url", ["local", "memory://atomic"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, url):
    folder = open_folder(str(tmp_path) if url == "local" else url)
    with pytest.raises(RuntimeError), folder.create("x.bin") as file:
        file.write(b"half")
        assert not folder.exists("x.bin")
        raise RuntimeError
    assert not folder.exists("x.bin") and folder.sizes() == {}
    with folder.create("deep/x.bin") as file:
        file.write(b"who")
        file.write(b"le")
    assert folder.sizes() == {"deep/x.bin": 5} and folder.read_bytes("deep/x.bin") == b"whole"
    assert file.sha256 == folder.sha256("deep/x.bin")
    folder.remove()


def test_parquet_and_tar_writers_can_write_into_it(tmp_path):
    import io
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Workspace(str(tmp_path))
    with out.create("t.parquet") as file:
        pq.write_table(pa.table({"x": [1, 2]}), file)
    with out.create("t.tar") as file, tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == {"x": [1, 2]}
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert tar.getnames() == ["a"]
    assert {name: entry["size"] for name, entry in out.digests.items()} == out.folder.sizes()


def test_readers_trust_only_what_has_a_manifest(tmp_path):
    Workspace(str(tmp_path)).write_bytes("x", b"1")
    with pytest.raises(FileNotFoundError, match="no published tokens"):
        Artifact("tokens", "0", str(tmp_path)).files()


def test_an_artifact_travels_and_reads(published):
    copy = pickle.loads(pickle.dumps(published))
    assert copy == published and copy.files("nested/*") == ["nested/1.txt"]
    assert copy.local_path("0.txt").read_bytes() == copy.read_bytes("0.txt") == b"a()"
    with pytest.raises(FileNotFoundError, match="no file 'unlisted'"):
        copy.open("unlisted")


def test_a_remote_artifact_is_copied_once_and_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("REPTOK_CACHE", str(tmp_path))
    run([Toy("a")], "memory://cached")
    artifact = plan([Toy("a")], "memory://cached")[0].artifact
    assert (artifact.local_path() / "nested" / "1.txt").read_bytes() == b"a()"
    artifact.local_path("0.txt").unlink()
    artifact.folder.write_bytes("0.txt", b"b()")
    with pytest.raises(OSError, match="damaged"):
        artifact.local_path("0.txt")
    open_folder("memory://cached").remove()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"A()"), "SHA-256"),
        (lambda path: path.write_bytes(b"a("), "2 bytes where the manifest says 3"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_verify_names_damaged_files(root, published, damage, message, capsys):
    assert verify(root) == [] and verify_main([root]) == 0
    damage(published.local_path("0.txt"))
    found = verify(root)
    assert len(found) == 2 and str(published.local_path("0.txt")) in found[0] and message in found[0]
    assert "force=a" in found[1]
    assert verify_main([root]) == 1
    assert run([Toy("a"), Toy("b", ("a_out",))], root, force="a") == {"a": "run", "b": "skip"}
    assert verify(root) == []


def test_verify_finds_a_changed_manifest(root, published):
    path = published.local_path("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["files"]["0.txt"]["size"] = 4
    path.write_text(json.dumps(manifest))
    assert "changed after it was written" in verify(root)[0]
    path.write_text(path.read_text()[:50])
    assert "not a readable manifest" in verify(root)[0]


def test_a_root_that_cannot_exist_is_told_as_such(tmp_path):
    folder = open_folder(str(tmp_path / ("a" * 300)))
    with pytest.raises(StorageError, match=r"path is too long; choose a shorter one with root="):
        folder.exists("manifest.json")


def test_a_place_that_cannot_be_written_is_named():
    if os.access("/sys", os.W_OK) and not os.path.ismount("/sys"):
        pytest.skip("needs a read-only folder")
    with pytest.raises(StorageError, match=r"cannot write /sys/.*root="):
        Workspace("/sys/reptok").write_bytes("x", b"1")


FULL_DISK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from toy_stages import Toy, run
big = lambda: os.path.exists("/mnt/small") and "y" * 100_000
print(run([Toy("a", action=big), Toy("b", ("a_out",))], "/mnt/store"))
os.truncate("/mnt/ballast", 0)
print(run([Toy("a", action=big), Toy("b", ("a_out",))], "/mnt/store"))
"""


def test_a_full_disk_is_named_and_a_rerun_completes(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(FULL_DISK)
    mount = (
        "mount -t tmpfs -o size=256k none /mnt && head -c 150k /dev/zero > /mnt/ballast && touch /mnt/small"
    )
    here = Path(__file__).parent
    command = ["unshare", "-rm", "sh", "-c", f"{mount} && exec {sys.executable} {script} {here}"]
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode:
        pytest.skip("needs a mount namespace")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines == ["{'a': 'failed', 'b': 'blocked'}", "{'a': 'resume', 'b': 'run'}"]
    assert "cannot write /mnt/store/a_out" in done.stderr and "no space is left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
