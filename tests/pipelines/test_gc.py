"""gc keeps models, named runs, aliases, new and unfinished work with all that they are made from."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import gc
from pipelines.dag.artifact import Artifact
from pipelines.dag.embedded_tracking import database
from pipelines.dag.execution import ORIGIN
from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.workspace import Workspace

OLD = "2026-01-01T00:00:00Z"


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Artifact]:
    """`publish("latents", "1", dataset)`: an old artifact of 1,000 bytes, made from others."""

    def make(kind: str, name: str, *inputs: Artifact, place: str = "", **manifest: Any) -> Artifact:
        name = name * 16
        out = Workspace(str(tmp_path / place / kind / name), name)
        out.write_bytes("bytes", f"{kind} {name}".encode().ljust(1000))
        known = {
            "stage": f"make_{kind}", "created": OLD, "config": {}, "stats": {},
            "inputs": {made.kind: made.fingerprint for made in inputs},
            "input_digests": {made.kind: made.digest for made in inputs},
        }  # fmt: skip
        out.publish({**known, **manifest})
        return Artifact(kind, name, out.url)

    return make


def there(root: Path) -> set[str]:
    return {f"{path.parts[-3]}/{path.parts[-2][0]}" for path in root.glob("[!_]*/*/bytes")}


def test_what_a_model_is_made_from_stays_and_the_rest_goes_with_its_bytes(
    tmp_path: Path, publish: Callable[..., Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    data = publish("dataset", "1")
    tokens = publish("tokens", "1", publish("tokenizer", "1", data), data)
    publish("model", "1", tokens)
    loose = publish("tokenizer", "2", publish("dataset", "2"), data)
    before = there(tmp_path)
    assert gc.main([f"root={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert there(tmp_path) == before and "nothing was deleted yet" in said
    assert f"delete tokenizer            {loose.fingerprint}  " in said and "2 folders of " in said
    gone = sum(path.stat().st_size for name in ("dataset", "tokenizer")
               for path in (tmp_path / name / ("2" * 16)).iterdir())  # fmt: skip
    assert f"2 folders of {gone:,} bytes" in said
    assert gc.main([f"root={tmp_path}", "delete=true"]) == 0
    assert there(tmp_path) == {"dataset/1", "tokenizer/1", "tokens/1", "model/1"}
    assert gc.main([f"root={tmp_path}"]) == 0 and "0 folders of 0 bytes" in capsys.readouterr().out


def test_new_unfinished_and_named_work_stays_with_its_origin(
    tmp_path: Path, publish: Callable[..., Artifact]
) -> None:
    publish(
        "tokens", "1", publish("dataset", "1"), created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )
    begun = Workspace(str(tmp_path / "latents" / ("3" * 16)))
    read = publish("dataset", "2")
    origin = {"dataset": {"fingerprint": read.fingerprint, "digest": read.digest}}
    begun.write_bytes(ORIGIN, canonical_json(origin))
    publish("tokens", "4", publish("dataset", "3"))
    publish("captions", "5")
    kept = gc.collect(str(tmp_path), ["4" * 16], 7.0, True).kept
    assert there(tmp_path) == {"tokens/1", "dataset/1", "dataset/2", "tokens/4", "dataset/3"}
    reasons = {found.why for found in kept if " " not in found.why}
    assert reasons == {"new", "named", "unfinished"} and len(kept) == 6
    assert begun.exists(ORIGIN)
    with pytest.raises(ValueError, match="keep=nobody: neither a run nor an artifact"):
        gc.collect(str(tmp_path), ["nobody"], 7.0, True)


def test_superseded_work_goes_unless_something_was_made_from_its_bytes(
    tmp_path: Path, publish: Callable[..., Artifact]
) -> None:
    read = publish("dataset", "1", place="_superseded")
    publish("dataset", "2", place="_superseded")
    publish("model", "1", read)
    gc.collect(str(tmp_path), [], 7.0, True)
    assert sorted(p.name[0] for p in (tmp_path / "_superseded" / "dataset").iterdir()) == ["1"]


def test_a_named_run_and_an_alias_keep_what_they_refer_to(
    tmp_path: Path, publish: Callable[..., Artifact]
) -> None:
    from mlflow import MlflowClient

    made = {name: publish("tokenizer", name, publish("dataset", name)) for name in "1234"}
    client = MlflowClient(f"sqlite:///{database(str(tmp_path))}")
    parent = client.create_run(client.create_experiment("e"), run_name="the good one")
    below = {"mlflow.parentRunId": parent.info.run_id, "fingerprint": made["1"].fingerprint}
    client.create_run(parent.info.experiment_id, tags=below)
    earlier = client.create_run(parent.info.experiment_id, tags={"fingerprint": made["4"].fingerprint})
    client.set_tag(parent.info.run_id, "stage.train", f"skip {earlier.info.run_id}")
    client.create_registered_model("reptok")
    version = client.create_model_version("reptok", made["2"].url, parent.info.run_id)
    client.set_registered_model_alias("reptok", "champion", version.version)
    gc.collect(str(tmp_path), ["the good one"], 7.0, True)
    assert there(tmp_path) == {
        "tokenizer/1",
        "dataset/1",
        "tokenizer/2",
        "dataset/2",
        "tokenizer/4",
        "dataset/4",
    }
