"""What an opt-out list deletes: everything with such a row, everything made of it, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines import purge
from pipelines.dag import runner, verify
from pipelines.dag.artifact import Artifact
from pipelines.dag.execution import ORIGIN
from pipelines.dag.stage import Stage
from pipelines.dag.tracking import TrackingConfig
from pipelines.dag.workspace import Workspace
from reptok.data import columns


def put(
    root: Path,
    kind: str,
    name: str,
    rows: list[str] | None = None,
    publish: bool = True,
    content: str = "",
    **inputs: str,
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
        out.write_bytes("content", (content or name).encode())
    if publish:
        out.publish({"inputs": inputs, "input_digests": {k: digest(root, k, n) for k, n in inputs.items()}})


def digest(root: Path, kind: str, name: str) -> str:
    return Artifact(kind, name, str(root / kind / name)).digest


def put_origin(out: Workspace, kind: str, fingerprint: str, digest: str) -> None:
    origin = {kind: {"fingerprint": fingerprint, "digest": digest}}
    out.folder.write_bytes(ORIGIN, json.dumps(origin).encode())


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
    found = {str(path.parent.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return found - {"_locks"}


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


def delete(root: Path) -> int:
    return purge.main([f"root={root}", f"opt_out={root.parent / 'opt_out.txt'}", "delete=true"])


CARD = (
    "# A model\n\n| a | b |\n\n![Best \\[x\\]](pictures/r/a.png)\n\n![Worst](pictures/r/b.png)\n\nThe end.\n"
)


def put_model(root: Path, name: str, **inputs: str) -> Path:
    out = Workspace(str(root / "model" / name), name)
    files = {"README.md": CARD, "report.html": "<img>", "model.safetensors": name, "pictures/r/a.png": "1",
             "pictures/r/b.png": "2", "tokenizer/config.json": "{}"}  # fmt: skip
    for file, text in files.items():
        out.write_bytes(file, text.encode())
    out.publish({"inputs": inputs, "input_digests": {k: digest(root, k, n) for k, n in inputs.items()}})
    return root / "model" / name


def test_a_model_loses_its_pictures_and_keeps_its_weights(store: Path) -> None:
    model, other = put_model(store, "5555", tokenizer="3333"), put_model(store, "6666", dataset="2222")
    old = put_model(store, "7777", tokenizer="3333")
    old.rename(store / "_superseded" / "7777-1")
    (store / "_superseded" / "model").mkdir()
    (store / "_superseded" / "7777-1").rename(store / "_superseded" / "model" / "7777-1")
    assert delete(store) == 0
    for stripped in (model, store / "_superseded" / "model" / "7777-1"):
        left = sorted(str(path.relative_to(stripped)) for path in stripped.rglob("*") if path.is_file())
        assert left == ["README.md", "manifest.json", "model.safetensors", "tokenizer/config.json"]
        assert (stripped / "README.md").read_text() == "# A model\n\n| a | b |\n\nThe end.\n"
        manifest = json.loads((stripped / "manifest.json").read_text())
        assert manifest["purged"] == ["pictures/r/a.png", "pictures/r/b.png", "report.html"]
    assert (other / "report.html").exists() and (other / "pictures" / "r" / "a.png").exists()
    assert verify.verify(str(store)) == []


@pytest.mark.parametrize("step", range(1, 30))
def test_a_purge_that_dies_is_taken_up_where_it_ended(
    store: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead before its n-th change of the disk; run again, nothing of theirs is left."""
    model = put_model(store, "5555", tokenizer="3333")
    changes = 0

    def dying(change):
        def counted(*arguments, **keywords):
            nonlocal changes
            changes += 1
            if changes == step:
                raise KeyboardInterrupt
            return change(*arguments, **keywords)

        return counted

    with monkeypatch.context() as patch:
        for name in ("unlink", "replace", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        with suppress(KeyboardInterrupt):
            delete(store)
    assert delete(store) == 0
    assert folders(store) - {"model/5555", "model/5555/tokenizer"} == {
        "urls/bbbb", "images/dddd", "dataset/2222", "tokenizer/3333",
    }  # fmt: skip
    assert not (model / "report.html").exists() and not list(model.glob("pictures/*/*"))


def test_unfinished_work_goes_if_it_is_made_of_theirs_or_nothing_tells(store: Path) -> None:
    def unfinished(kind: str, name: str, *origin: str) -> None:
        out = Workspace(str(store / kind / name), name)
        out.write_bytes("part", b"x")
        if origin:
            put_origin(out, *origin)

    theirs = ("dataset", "1111", digest(store, "dataset", "1111"))
    unfinished("latents", "theirs", *theirs)
    unfinished("latents", "others", "dataset", "2222", digest(store, "dataset", "2222"))
    unfinished("latents", "early", "dataset", "1111", "")  # begun in a chain, before that was published
    unfinished("tokens", "early", "latents", "early", "")
    unfinished("latents", "0123456789abcdef")
    unfinished("tokens", "0123456789abcde0", "latents", "0123456789abcdef", "")
    unfinished("latents", "0123456789abcdff-3")
    (store / "latents" / "0123456789abcdff-3" / ORIGIN).parent.mkdir()
    (store / "latents" / "0123456789abcdff-3" / ORIGIN).write_text('["no", "object"]')
    unfinished("my_notes", "2026")  # no artifact at all
    unfinished("mlartifacts", "0" * 32)
    unfinished("model", "theirs", *theirs)
    unfinished("generator", "theirs", *theirs)  # checkpoints: yours to decide
    assert delete(store) == 0
    left = {path.parent.name + "/" + path.name for path in store.glob("*/*") if path.is_dir()}
    assert left >= {"latents/others", "generator/theirs", "my_notes/2026", "mlartifacts/" + "0" * 32}
    assert not [name for name in left if name.startswith(("latents/0", "tokens/0"))]
    assert not {"latents/theirs", "model/theirs", "latents/early", "tokens/early"} & left


def test_what_only_has_the_same_bytes_stays(store: Path) -> None:
    """Data sets of other images may be alike byte by byte: of their pictures nothing came into either."""
    put(store, "dataset", "aa11", content="alike", images="cccc")
    put(store, "dataset", "bb11", content="alike", images="dddd")
    put(store, "latents", "aa22", dataset="aa11")
    put(store, "latents", "bb22", dataset="bb11")
    for name, dataset in (("aa33", "aa11"), ("bb33", "bb11")):
        out = Workspace(str(store / "latents" / name), name)
        put_origin(out, "dataset", dataset, digest(store, "dataset", dataset))
    put(store, "_superseded/dataset", "bb11-1", content="another", images="dddd")
    put(store, "dataset", "ee11", content="gone", images="dddd")
    put(store, "latents", "ee22", dataset="ee11")  # of what is gone, another's bytes are all that is known
    shutil.rmtree(store / "dataset" / "ee11")
    put(store, "dataset", "ff11", content="gone", images="cccc")
    assert delete(store) == 0
    left = {f"{path.parent.name}/{path.name}" for path in store.glob("*/*") if path.is_dir()}
    assert {"dataset/bb11", "latents/bb22", "latents/bb33"} <= left
    assert not {"dataset/aa11", "latents/aa22", "latents/aa33", "latents/ee22", "dataset/ff11"} & left
    assert (store / "_superseded" / "dataset" / "bb11-1").exists()


def test_what_was_made_of_bytes_that_were_superseded_goes_with_them(store: Path) -> None:
    """The data set in the place of theirs has the same name, other bytes and none of theirs."""
    put(store, "dataset", "aa11", content="old", images="cccc")
    put(store, "latents", "aa22", dataset="aa11")
    aside = store / "_superseded" / "dataset"
    aside.mkdir()
    (store / "dataset" / "aa11").rename(aside / "aa11-1")
    put(store, "dataset", "aa11", content="new", images="dddd")
    put(store, "latents", "bb22", dataset="aa11")
    assert delete(store) == 0
    assert not (aside / "aa11-1").exists() and not (store / "latents" / "aa22").exists()
    assert (store / "dataset" / "aa11").exists() and (store / "latents" / "bb22").exists()


def test_a_table_that_was_not_written_to_its_end_goes_if_its_list_has_theirs(store: Path) -> None:
    """Its rows cannot be read, and it may hold their pictures."""
    for name, urls in (("0a", "aaaa"), ("0b", "bbbb")):
        out = Workspace(str(store / "images" / name), name)
        with out.create("images-00000.parquet") as file:
            row = {"key": ["0"], "url": ["http://b.test/1.jpg"], "status": ["success"]}
            columns.write_table(file, {**row, "final_url": row["url"]}, columns.IMAGES)
        put_origin(out, "urls", urls, digest(store, "urls", urls))
        (store / "images" / name / ".images-00001.parquet.0123456789ab.part").write_bytes(
            b"PAR1 half a picture"
        )
    assert delete(store) == 0
    assert not (store / "images" / "0a").exists() and (store / "images" / "0b").exists()


def test_links_are_named_and_not_followed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = store.parent / "outside"
    for kind, name in (("images", "8888"), ("dataset", "9999")):
        put(outside, kind, name, ["http://theirs.test/1.jpg"] if kind == "images" else None)
    (store / "more_images").symlink_to(outside / "images")
    (store / "images" / "linked").symlink_to(outside / "images" / "8888")
    (store / "dataset" / "dangling").symlink_to(outside / "nowhere")
    (store / "_superseded" / "dataset").symlink_to(outside / "dataset")
    before = folders(outside)
    assert delete(store) == 1
    said = capsys.readouterr().err
    for place in ("more_images", "images/linked", "_superseded/dataset"):
        assert f"error: {store / place}: a link, which is not followed" in said
    assert folders(outside) == before and (store / "more_images").is_symlink()
    assert not (store / "images" / "cccc").exists(), "the rest went"


def test_a_link_inside_an_artifact_takes_nothing_with_it(store: Path) -> None:
    treasure = store.parent / "treasure"
    treasure.mkdir()
    (treasure / "file").write_text("mine")
    (store / "images" / "cccc" / "deep").symlink_to(treasure)
    (store / "images" / "cccc" / "flat").symlink_to(treasure / "file")
    assert delete(store) == 0
    assert (treasure / "file").read_text() == "mine" and not (store / "images" / "cccc").exists()


def test_what_cannot_be_read_is_named_and_the_rest_is_purged(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "dataset" / "2222" / "manifest.json").write_text('{"files": 5')
    put(store, "images", "aced", ["http://b.test/1.jpg"], urls="bbbb")
    (store / "images" / "aced" / "images-00000.parquet").write_bytes(b"PAR1 no table")
    assert delete(store) == 1
    said = capsys.readouterr().err
    assert f"{store / 'dataset/2222/manifest.json'}: not a readable manifest" in said
    assert "images-00000.parquet is not readable" in said and "Traceback" not in said
    assert {"urls/bbbb", "images/dddd", "dataset/2222", "tokenizer/3333"} < folders(store)
    assert not {"images/cccc", "dataset/1111", "tokenizer_report/4444"} & folders(store)


class Pictures(Stage):
    """Logs a picture, a report and an error's text, as evaluations and trainings do."""

    def __init__(self, output: str, inputs: tuple[str, ...] = (), rows: list[str] | None = None) -> None:
        super().__init__({"rows": rows})
        self.name, self.output, self.inputs, self._rows = f"make_{output}", output, inputs, rows  # type: ignore[misc]

    def run(self, inputs, out):
        from PIL import Image

        if self._rows is not None:
            with out.create("images-00000.parquet") as file:
                keys, status = [f"{n:012d}" for n in range(len(self._rows))], ["success"] * len(self._rows)
                table = {"key": keys, "url": self._rows, "status": status, "final_url": self._rows}
                columns.write_table(file, table, columns.IMAGES)
        out.write_bytes("content", " ".join(source.digest for source in inputs.values()).encode())
        out.log.picture("grid", Image.new("RGB", (4, 4)))
        out.log.picture("val/reconstructions", Image.new("RGB", (4, 4)), step=5)
        out.log.text("report.html", "<img>")
        out.log.metrics({"loss": 1.0}, 5)
        return {}


def test_runs_lose_their_pictures_and_keep_their_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "runs, größe"
    (tmp_path / "opt_out.txt").write_text("theirs.test\n")
    for host in ("theirs.test", "b.test"):
        stages = [Pictures("images", rows=[f"http://{host}/1.jpg"]), Pictures("dataset", ("images",)),
                  Pictures("tokenizer", ("dataset",))]  # fmt: skip
        runner.run(stages, root=str(root), tracking=TrackingConfig())
    pictures = lambda: sorted(root.glob("mlartifacts/**/*.png")) + sorted(root.glob("mlartifacts/**/*.html"))  # noqa: E731
    assert len(pictures()) == 18
    assert purge.main([f"root={root}", f"opt_out={tmp_path / 'opt_out.txt'}"]) == 0
    assert len(pictures()) == 18, "it was only asked"
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert delete(root) == 0
    assert len(pictures()) == 9 and len(list(root.glob("mlartifacts/**/manifest.json"))) == 6
    assert len(list(copy.glob("mlartifacts/**/*.png"))) == 12, "the copy is another store"
    shutil.rmtree(root)
    shutil.copytree(copy, root)
    assert delete(copy) == 0, "and purging it"
    assert len(list(copy.glob("mlartifacts/**/*.png"))) == 6 and len(pictures()) == 18, "leaves the first one"


def test_a_store_that_is_not_there_is_no_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "opt_out.txt").write_text("theirs.test\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for root in ("rnus", "opt_out.txt", "dangling"):
        assert delete(tmp_path / root) == 2
        assert f"{tmp_path / root} is no folder" in capsys.readouterr().err


def test_what_is_purged_goes_nowhere_by_a_link(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    treasure = store.parent / "treasure"
    treasure.mkdir()
    (treasure / "file").write_text("mine")
    (store / "_purged").symlink_to(treasure)
    before = folders(store)
    assert delete(store) == 2
    assert "_purged is a link" in capsys.readouterr().err and folders(store) == before
    assert (treasure / "file").read_text() == "mine"


def test_names_do_not_steer_the_terminal(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "images" / "\x1b[2J").symlink_to(store)
    put(store, "images", "\x1b[31m", ["http://theirs.test/1.jpg"], publish=False)
    assert delete(store) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "\\x1b[2J" in said.err and "\\x1b[31m" in said.out


@pytest.mark.parametrize("lay", ["a linked table", "a linked folder of tables", "a fifo", "a dangling link"])
def test_tables_that_are_no_files_are_named(
    lay: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, elsewhere = store / "images" / "dddd", store.parent / "elsewhere"
    table = folder / "images-00000.parquet"
    if lay == "a linked table":
        (store / "images" / "cccc" / table.name).rename(elsewhere)
        table.unlink()
        table.symlink_to(elsewhere)
    elif lay == "a fifo":
        os.mkfifo(folder / "images-00001.parquet")
    elif lay == "a dangling link":
        (folder / "images-00001.parquet").symlink_to("nowhere")
    else:
        elsewhere.mkdir()
        (folder / "images-00001.parquet").symlink_to(elsewhere)
    status = delete(store)
    said = capsys.readouterr()
    if lay == "a linked table":
        assert status == 0 and not folder.exists() and elsewhere.exists()
    else:
        assert status == 1 and str(folder) in said.err


def test_wrong_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert purge.main(["root=runs"]) == 2
    assert "opt_out=" in capsys.readouterr().err
    assert purge.main([f"root={tmp_path}", "opt_out=/no/such/list"]) == 2
    assert "/no/such/list" in capsys.readouterr().err
