"""The program's commands do what their own files do."""

import subprocess
import sys

from pipelines import plan
from pipelines.__main__ import COMMANDS, main
from pipelines.dag.reference import HOME
from pipelines.dag.workspace import Workspace
from pipelines.run_all import chosen


def test_a_plan_is_the_same_through_either_door(tmp_path, capsys):
    arguments = ["format=json", f"root={tmp_path}"]
    assert plan.main(arguments) == 0
    own = capsys.readouterr().out
    assert main(["plan", *arguments]) == 0 and capsys.readouterr().out == own
    command = [sys.executable, "-m", "pipelines", "plan", *arguments]
    assert subprocess.run(command, cwd=HOME, capture_output=True, text=True).stdout == own


def test_every_command_refuses_what_it_does_not_know(tmp_path, capsys):
    for name in COMMANDS:
        assert main([name, f"root={tmp_path}/none", "no_such_key=1"]) == 2, name
        assert capsys.readouterr().err.strip(), name


def test_verify_finds_a_damaged_file(tmp_path, capsys):
    out = Workspace(str(tmp_path / "urls" / ("0" * 16)), "0" * 16)
    out.write_bytes("urls-00000.parquet", b"bytes")
    facts = {"config": {}, "inputs": {}, "stats": {}, "seconds": 1.0, "git_commit": "abc"}
    out.publish({"stage": "select_urls", **facts})
    assert main(["verify", f"root={tmp_path}"]) == 0
    (tmp_path / "urls" / ("0" * 16) / "urls-00000.parquet").write_bytes(b"other")
    assert main(["verify", f"root={tmp_path}"]) == 1
    assert "urls-00000.parquet" in capsys.readouterr().out


def test_a_wrong_command_names_the_nearest(capsys):
    assert main(["pln"]) == 2
    assert "did you mean plan?" in capsys.readouterr().err
    assert main([]) == 2 and main(["--help"]) == 0
    assert "python -m pipelines verify" in capsys.readouterr().out


def test_mlflow_is_told_what_an_invocation_set_itself_and_not_how_it_runs():
    given = [
        "experiment=demo_classes", "train.tokenizer.steps=20", "+data.x=a=b", "root=s3://b/x", "until=shard",
        "tracking.experiment=e", "cluster.num_cpus=2", "data=folder", "data.folder=https://u:p@h/x",
    ]  # fmt: skip
    assert chosen(given) == {
        "experiment": "demo_classes", "train.tokenizer.steps": "20", "data.x": "a=b", "data": "folder",
        "data.folder": "https://***@h/x",
    }  # fmt: skip
