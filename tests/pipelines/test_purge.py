"""What an opt-out list deletes: everything with such a row, everything made of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import purge
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from reptok.data import columns


def put(
    root: Path, kind: str, name: str, rows: list[str] | None = None, publish: bool = True, **inputs: str
) -> None:
    out = Workspace(str(root / kind / name), name)
    if kind.endswith("urls") and rows is not None:
        with out.create("urls-00000.parquet") as file:
            keys = [f"{number:012d}" for number in range(len(rows))]
            columns.write_table(file, {"key": keys, "url": rows}, columns.URLS)
    elif kind.endswith("images") and rows is not None:
        with out.create("images-00000.parquet") as file:
            keys = [f"{number:012d}" for number in range(len(rows))]
            asked = [f"http://moved.test/{number}" for number in range(len(rows))]
            status = ["success"] * len(rows)
            table = {"key": keys, "url": asked, "status": status, "final_url": rows}
            columns.write_table(file, table, columns.IMAGES)
    else:
        out.write_bytes("content", name.encode())
    if publish:
        made_from = {kind: Artifact(kind, name, str(root / kind / name)) for kind, name in inputs.items()}
        out.publish({"input_digests": {kind: source.digest for kind, source in made_from.items()}})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    theirs, others = ["http://www.theirs.test/1.jpg", "http://b.test/1.jpg"], ["http://b.test/1.jpg"]
    root = tmp_path / "runs"
    put(root, "urls", "aaaa", theirs)
    put(root, "urls", "bbbb", others)
    put(root, "images", "cccc", theirs, urls="aaaa")
    put(root, "images", "dddd", others, urls="bbbb")
    put(root, "images", "eeee", theirs[:1], urls="bbbb")  # a redirect led to them
    put(root, "images", "ffff", theirs, publish=False)
    put(root, "dataset", "1111", images="cccc")
    put(root, "dataset", "2222", images="dddd")
    put(root, "tokenizer", "3333", dataset="1111")
    put(root, "tokenizer_report", "4444", tokenizer="3333")
    put(root, "_superseded/images", "dddd-1", theirs, urls="bbbb")
    (tmp_path / "opt_out.txt").write_text("# they asked\ntheirs.test\n")
    return root


def folders(root: Path) -> set[str]:
    return {str(path.parent.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_it_names_first_and_deletes_only_when_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = folders(store)
    arguments = [f"root={store}", f"opt_out={store.parent / 'opt_out.txt'}"]
    assert purge.main(arguments) == 0
    said = capsys.readouterr().out
    assert folders(store) == before and "nothing was deleted yet" in said
    assert "keep   tokenizer" in said and "delete urls                 aaaa  1 rows" in said
    assert purge.main([*arguments, "delete=true"]) == 0
    assert folders(store) == {"urls/bbbb", "images/dddd", "dataset/2222", "tokenizer/3333"}
    assert purge.main(arguments) == 0
    assert "delete" not in capsys.readouterr().out.splitlines()[-1]


def test_what_others_gave_stays(tmp_path: Path) -> None:
    put(tmp_path / "runs", "urls", "bbbb", ["http://b.test/1.jpg"])
    put(tmp_path / "runs", "images", "dddd", ["http://b.test/1.jpg"], urls="bbbb")
    (tmp_path / "opt_out.txt").write_text("theirs.test\n")
    arguments = [f"root={tmp_path / 'runs'}", f"opt_out={tmp_path / 'opt_out.txt'}", "delete=true"]
    assert purge.main(arguments) == 0
    assert folders(tmp_path / "runs") == {"urls/bbbb", "images/dddd"}


def test_wrong_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert purge.main(["root=runs"]) == 2
    assert "opt_out=" in capsys.readouterr().err
    assert purge.main([f"root={tmp_path}", "opt_out=/no/such/list"]) == 2
    assert "/no/such/list" in capsys.readouterr().err
