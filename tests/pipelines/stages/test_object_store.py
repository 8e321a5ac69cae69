"""The same stages on an S3 server: the same bytes, the manifest last, nothing trusted after a fault."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from pipelines.dag import s3 as s3_folders
from pipelines.dag.artifact import Artifact
from pipelines.dag.coming import Coming, came
from pipelines.dag.earlier import ask
from pipelines.dag.shard_actor import ShardActor, do_shard
from pipelines.dag.shard_records import read_done, write_plan
from pipelines.dag.storage import open_folder
from pipelines.dag.verify import verify
from pipelines.dag.workspace import Workspace
from pipelines.dag.writing import StorageError
from pipelines.stages.encode_latents import EncodeLatents
from pipelines.stages.shard import ShardConfig, ShardDataset
from pipelines.stages.tables import in_order

sys.path.insert(0, str(Path(__file__).parents[1] / "dag"))
from toy_shards import Shout, shards
from toy_stages import Toy, contents, diamond, run

ROOT = "s3://reptok/runs"


def objects(client, prefix="runs/"):
    found = {}
    for entry in client.list_objects_v2(Bucket="reptok", Prefix=prefix).get("Contents", []):
        found[entry["Key"].removeprefix(prefix)] = client.get_object(Bucket="reptok", Key=entry["Key"])[
            "Body"
        ].read()
    return found


def published(client):
    return {
        name: data
        for name, data in objects(client).items()
        if not name.startswith("_") and "_scratch" not in name and not name.endswith("manifest.json")
    }


def test_a_workflow_has_the_same_bytes_as_on_disk(s3, s3_server, tmp_path):
    assert set(run(diamond(), ROOT).values()) == {"run"}
    run(diamond(), str(tmp_path / "disk"))
    assert published(s3) == contents(tmp_path / "disk") and len(published(s3)) == 8
    assert not [name for name in objects(s3) if "_scratch" in name]
    assert set(run(diamond(), ROOT).values()) == {"skip"}
    assert run(diamond(), ROOT, force="b") == {"a": "skip", "b": "run", "c": "skip", "d": "skip"}
    assert published(s3) == contents(tmp_path / "disk")
    assert [name for name in objects(s3) if name.startswith("_superseded/b_out/")]
    assert verify(ROOT) == []


def test_the_manifest_is_the_last_file_of_an_artifact(s3, s3_server):
    run([Toy("a")], ROOT)
    puts = [line.split()[1] for line in s3_server.requests if line.startswith("PUT") and "/a_out/" in line]
    puts = [path for path in puts if "_scratch" not in path]
    assert [path.rpartition("/")[2] for path in puts] == ["0.txt", "1.txt", "manifest.json"]


def test_no_credential_is_written_anywhere(s3, s3_server):
    run([Toy("a")], ROOT)
    assert not [name for name, data in objects(s3, "").items() if b"s3cr3t" in data or b"AKIATEST" in data]
    with pytest.raises(ValueError, match="holds no credentials: they come from the environment"):
        open_folder("s3://key:secret@reptok/runs")


def test_data_stages_have_the_same_bytes_as_on_disk(
    s3, dataset, make_tables, latents_config, in_process, tmp_path
):
    """Images and captions in tables -> dataset -> latents, all of it on S3, against the same on disk."""

    def chain(root):
        inputs = make_tables(root)
        made = {}
        for stage in (
            ShardDataset(ShardConfig(image_size=32)),
            EncodeLatents(latents_config),
        ):
            out = Workspace(f"{root}/{stage.output}/0")
            inputs["dataset"] = made.get("dataset")
            stage.run({kind: inputs[kind] for kind in stage.inputs}, out)
            out.publish({"stage": stage.name})
            made[stage.output] = Artifact(stage.output, "0", out.url)
        return {kind: artifact.manifest["files"] for kind, artifact in made.items()}

    here, there = chain(str(tmp_path / "disk")), chain(ROOT)
    assert here == there and set(here) == {"dataset", "latents"} and len(here["dataset"]) == 5
    assert verify(ROOT) == []


@pytest.fixture
def make_tables(dataset):
    """Write the pictures of `dataset` as `images` and `captions` artifacts under a root."""
    from pipelines.stages.dataset import dataset_shards
    from reptok.data.columns import CAPTIONS, IMAGES, write_table
    from reptok.data.shards import read_samples

    samples = []
    for shard in dataset_shards(dataset):
        samples += list(read_samples(dataset.local_path(f"{shard.name}.tar")))
    samples.sort(key=lambda sample: sample.key)

    def make(root):
        images = [
            {"key": s.key, "status": "success", "jpg": s.jpg, "width": 32, "height": 32} for s in samples
        ]
        captions = [{"key": s.key, "caption": s.caption, "source": "alt_text"} for s in samples]
        made = {}
        for kind, rows, schema in (("images", images, IMAGES), ("captions", captions, CAPTIONS)):
            out = Workspace(f"{root}/{kind}/0")
            for number, split in enumerate(("train", "val")):
                with out.create(f"{kind}-{split}-{number:05d}.parquet") as file:
                    write_table(file, rows[number * 10 : number * 10 + 10], schema)
            out.publish({"stage": "test"})
            made[kind] = Artifact(kind, "0", out.url)
        return made

    return make


def test_a_shard_of_a_chain_costs_what_it_reads_and_writes(s3, s3_server, make_tables, latents_config):
    """What the steps before have said is not asked for: no digest, no count of rows, no look."""
    tables, asked_for = make_tables(ROOT), []

    def second(stage, inputs):
        """Requests for the second shard: the first one sets the worker up."""
        coming = {kind: Coming(*known) for kind, known in inputs.items()}
        out = Workspace(f"{ROOT}/{stage.output}/0")
        ask(stage, coming, out)
        work = stage.work(coming, out)
        work.job.setup()
        records = []
        for shard in work.shards:
            s3_server.requests.clear()
            records.append(do_shard(shard, work.job, out))
            came(out.url, shard.index, records[-1])
        asked_for.extend(line.replace("/reptok/runs/", "") for line in s3_server.requests)
        return Artifact(stage.output, "0", out.url), [f for r in records for f in r["files"]], work.facts

    given = {}
    for kind, artifact in tables.items():
        given[kind] = (artifact, artifact.files(), {})
        for index, name in enumerate(in_order(artifact.files())):
            files = {name: artifact.manifest["files"][name]}
            came(artifact.url, index, {"files": files, "stats": {"rows_out": 10.0}})
    dataset = second(ShardDataset(ShardConfig(image_size=32)), given)
    second(EncodeLatents(latents_config), {"dataset": dataset})
    done = "_scratch/shards/done/000001.json"
    assert asked_for == [
        "GET captions/0/captions-train-00000.parquet", "GET images/0/images-train-00000.parquet",
        "PUT dataset/0/train-00000.parquet", "PUT dataset/0/train-00000.tar", f"PUT dataset/0/{done}",
        "GET dataset/0/train-00000.tar", "PUT latents/0/train-00000.tar", f"PUT latents/0/{done}",
    ]  # fmt: skip


def test_a_file_that_is_read_whole_takes_one_request_wherever_it_is_read_first(s3, s3_server):
    data = os.urandom(3 << 20)
    open_folder(ROOT).write_bytes("large", data)
    s3_server.requests.clear()
    with open_folder(ROOT).open_whole("large") as file:
        file.seek(-8, os.SEEK_END)
        assert file.read() == data[-8:]
        file.seek(1 << 20)
        assert file.read(1 << 20) == data[1 << 20 : 2 << 20]
    assert s3_server.requests == ["GET /reptok/runs/large"]
    with pytest.raises(FileNotFoundError):
        open_folder(ROOT).open_whole("small")


@pytest.fixture
def latents_config(tiny_models):
    from pipelines.encoding.device import ComputeConfig
    from pipelines.stages.encode_latents import EncodeLatentsConfig
    from reptok.configs import AutoencoderConfig, EncoderConfig

    return EncodeLatentsConfig(
        vae=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
        encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32),
        compute=ComputeConfig(batch_size=4),
    )


def test_a_moment_of_503_is_waited_out(s3, s3_server):
    left = [3]

    def busy(method, path):
        left[0] -= 1
        return left[0] >= 0

    s3_server.gate = busy
    assert run([Toy("a")], ROOT) == {"a": "run"}
    assert s3_server.refused == 3


def test_a_lasting_503_is_said_and_a_rerun_completes(s3, s3_server, capsys, monkeypatch, tmp_path):
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3_server.gate = lambda method, path: method == "PUT" and path.endswith("1.txt")
    assert run([Toy("a"), Toy("b", ("a_out",))], ROOT) == {"a": "failed", "b": "blocked"}
    message = capsys.readouterr().err
    assert f"cannot write {ROOT}/a_out/" in message and "overloaded" in message and "run again" in message
    assert not [name for name in objects(s3) if name.endswith("manifest.json")]
    s3_server.gate = lambda method, path: False
    assert run([Toy("a"), Toy("b", ("a_out",))], ROOT) == {"a": "resume", "b": "run"}
    run([Toy("a"), Toy("b", ("a_out",))], str(tmp_path / "disk"))
    assert published(s3) == contents(tmp_path / "disk")


def test_missing_buckets_keys_and_servers_are_said(s3, s3_server, monkeypatch):
    with pytest.raises(StorageError, match="there is no such bucket; create it"):
        open_folder("s3://nowhere/runs").write_bytes("x", b"1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StorageError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        open_folder(ROOT).write_bytes("x", b"1")


SLOW_UPLOAD = """
import sys
from pipelines.dag import s3 as s3_folders
from pipelines.dag.workspace import Workspace
s3_folders.PART_BYTES = 5 * 2**20
Workspace(sys.argv[1]).write_bytes("large.bin", bytes(11 * 2**20))
"""


def test_a_killed_multipart_upload_leaves_nothing_trusted(s3, s3_server, monkeypatch):
    url = f"{ROOT}/tokens/0"
    s3_server.gate = lambda method, path: method == "PUT" and "partNumber=3" in path  # retried for a while
    process = subprocess.Popen([sys.executable, "-c", SLOW_UPLOAD, url])
    for _ in range(600):
        if s3_server.refused:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -9
    assert len(s3.list_multipart_uploads(Bucket="reptok").get("Uploads", [])) == 1
    folder = open_folder(url)
    assert folder.sizes() == {} and not folder.exists("large.bin")
    folder.remove_unfinished()
    assert not s3.list_multipart_uploads(Bucket="reptok").get("Uploads")
    s3_server.gate = lambda method, path: False
    monkeypatch.setattr(s3_folders, "PART_BYTES", 5 * 2**20)
    out = Workspace(url)
    out.write_bytes("large.bin", bytes(11 * 2**20))
    assert out.folder.sizes() == {"large.bin": 11 * 2**20}
    assert out.digests["large.bin"]["sha256"] == out.folder.sha256("large.bin")


def test_shards_resume_from_their_records(s3, tmp_path):
    out = Workspace(f"{ROOT}/words/0")
    actor = ShardActor(Shout(str(tmp_path / "journal")), out)
    write_plan(shards(), out)
    for shard in shards()[:4]:
        assert not actor({"shard": json.dumps(asdict(shard))})["failure"]
    assert set(read_done(shards(), out)) == {0, 1, 2, 3}
    s3.delete_object(Bucket="reptok", Key="runs/words/0/text-00002.txt")
    assert set(read_done(shards(), out)) == {0, 1, 3}


def test_a_list_of_urls_is_read_from_the_store(s3, tmp_path):
    from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig

    s3.put_object(
        Bucket="reptok", Key="lists/a.csv", Body=b"url,text\nhttp://a.test/1,one\nhttp://a.test/2,two\n"
    )
    s3.put_object(Bucket="reptok", Key="lists/opt_out.txt", Body=b"http://a.test/2\n")
    config = SelectUrlsConfig(
        sources=("s3://reptok/lists/*.csv",), opt_out="s3://reptok/lists/opt_out.txt", dedup_image=False
    )
    out = Workspace(str(tmp_path / "urls"))
    assert SelectUrls(config).run({}, out)["dropped_opted_out"] == 1
    assert "urls-train-00000.parquet" in out.files()
