"""Kill data stages at named points, and look at what is left.

`PYTHONPATH=tests/pipelines/dag python kill_points.py FOLDER MODELS` prints {"points": [...], "faults":
[...]}. A point is a stage, a file that it writes and a moment of that: "before" it is created, "half"
written, "written" but not yet under its name, "placed". A forked child is killed (SIGKILL) there, then
another runs the same stage with more workers: its bytes must be an undisturbed run's.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from dataclasses import asdict
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
from kill_everywhere import child
from PIL import Image
from toy_stages import contents

from pipelines.dag import planner
from pipelines.dag import shards as shards_module
from pipelines.dag.artifact import Artifact
from pipelines.dag.execution import execute
from pipelines.dag.planner import PlannedStage
from pipelines.dag.revision import git_commit
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.storage import LocalFolder
from pipelines.dag.tracking import Tracker, TrackingConfig
from pipelines.dag.verify import published_artifacts, verify
from pipelines.dag.workspace import Workspace
from pipelines.dag.writing import DigestingWriter
from pipelines.encoding.device import ComputeConfig
from pipelines.stages.encode_latents import EncodeLatents, EncodeLatentsConfig
from pipelines.stages.encode_tokens import EncodeTokens, EncodeTokensConfig
from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, RepTokConfig
from reptok.data.columns import CAPTIONS, IMAGES, write_table
from reptok.data.images import encode_jpeg

SIZE, PICTURES, PER_SHARD = 32, 9, 3
MOMENTS = {
    "_scratch/shards/plan.json": ("before", "half", "placed"),
    "train-00001.tar": ("before", "half", "written", "placed"),
    "_scratch/shards/done/000001.json": ("before", "half", "written", "placed"),
    "LAST": ("before", "half", "placed"),
    "manifest.json": ("before", "half", "written", "placed"),
}
LAST = {"dataset": "index.json", "latents": "latent_spec.json", "tokens": "token_stats.safetensors"}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killing_at(pattern, moment):
    """Let this process die at a moment of the first file whose name matches."""
    create, replace = LocalFolder.create, os.replace

    class Half(DigestingWriter):
        def write(self, data, /):
            view = memoryview(data).cast("B")
            super().write(view[: len(view) // 2])
            self.flush()
            kill()

    @contextlib.contextmanager
    def fragile(self, name):
        if not fnmatch(name, pattern):
            with create(self, name) as file:
                yield file
            return
        if moment == "before":
            kill()
        if moment == "written":
            os.replace = lambda source, target: kill()
        with create(self, name) as file:
            if moment == "half":
                file.__class__ = Half
            yield file
        os.replace = replace
        if moment == "placed":
            kill()

    LocalFolder.create = fragile


def in_this_process(missing, job, out, resources, workers=1):
    """In the place of Ray: the shards, the last one first, by turns of so many workers."""
    actors = [ShardActor(job, out) for _ in range(workers)]
    for number, shard in enumerate(reversed(missing)):
        row = actors[number % workers]({"shard": json.dumps(asdict(shard))})
        yield row["index"], json.loads(row["record"] or "{}"), row["failure"]


def run_once(stage, inputs, root):
    artifact = planner.artifact_of(stage, inputs, root)
    planned = PlannedStage(stage=stage, action="run", reason="", artifact=artifact, inputs=inputs)
    result = execute(planned, root, Tracker(TrackingConfig(enabled=False), root, {}))
    if result.error:
        raise RuntimeError(result.error)


def resume(stage, inputs, root):
    shards_module._stream = partial(in_this_process, workers=2)
    run_once(stage, inputs, root)


def sweep(stage, inputs, folder, moments_of=MOMENTS):
    reference = folder / "reference"
    if child(lambda: run_once(stage, inputs, str(reference))) != 0:
        raise RuntimeError(f"{stage.name} does not run at all")
    expected, points, faults = contents(reference), [], []
    for pattern, moments in moments_of.items():
        pattern = LAST[stage.output] if pattern == "LAST" else pattern
        for moment in moments:
            point, root = f"{stage.name}: {pattern}: {moment}", str(folder / "store")
            points.append(point)
            shutil.rmtree(root, ignore_errors=True)

            def killed(pattern=pattern, moment=moment, root=root):
                killing_at(pattern, moment)
                run_once(stage, inputs, root)

            if child(killed) != -signal.SIGKILL:
                faults.append(f"{point}: never reached")
            trusted = contents(root)
            for artifact in published_artifacts(root):
                names = {f"{artifact.kind}/{artifact.fingerprint}/{name}" for name in artifact.files()}
                if {name: trusted.get(name) for name in names} != expected:
                    faults.append(f"{point}: published with other bytes")
            if child(lambda root=root: resume(stage, inputs, root)) != 0:
                faults.append(f"{point}: the next run failed")
            if contents(root) != expected:
                faults.append(f"{point}: the next run ended with other bytes: {sorted(contents(root))}")
            faults += [f"{point}: {line}" for line in verify(root)]
            left = [p for p in Path(root).rglob("*") if p.suffix == ".part" or p.name == "_scratch"]
            faults += [f"{point}: {path} was left behind" for path in left]
    return points, faults


def given(folder, kind, write):
    out = Workspace(str(folder / kind), kind)
    write(out)
    out.publish({"stage": "given", "input_digests": {}})
    return Artifact(kind, kind, out.url)


def prepare(folder, models):
    """The stages with their inputs: pictures, tables, a dataset and a tokenizer."""
    from reptok.pretrained import save_tokenizer
    from reptok.tokenizer import RepTok

    noise = np.random.default_rng(0)
    pixels = noise.integers(0, 256, (PICTURES, SIZE, SIZE, 3), dtype=np.uint8)
    (folder / "pictures").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "pictures" / f"{number}.png")
    config = ImportImagesConfig(
        folder=str(folder / "pictures"), image_size=SIZE, val_fraction=0.3, samples_per_shard=PER_SHARD
    )

    square = {"width": SIZE, "height": SIZE}

    def write_images(out):
        for shard in range(PICTURES // PER_SHARD):
            numbers = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
            rows = [
                {"key": f"{i:012d}", "status": "success", "jpg": encode_jpeg(pixels[i]), **square}
                for i in numbers
            ]
            with out.create(f"images-train-{shard:05d}.parquet") as file:
                write_table(file, rows, IMAGES)

    def write_captions(out):
        for shard in range(PICTURES // PER_SHARD):
            numbers = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
            rows = [{"key": f"{i:012d}", "caption": f"number {i}", "source": "alt_text"} for i in numbers]
            with out.create(f"captions-train-{shard:05d}.parquet") as file:
                write_table(file, rows, CAPTIONS)

    def write_dataset(out):
        ImportImages(config).run({}, out)
        out.remove_scratch()

    def write_tokenizer(out):
        save_tokenizer(RepTok(tokenizer), out.local_path())

    encoder = EncoderConfig(name="folder", path=str(models / "encoder"), image_size=SIZE)
    vae = AutoencoderConfig(path=str(models / "autoencoder"))
    decoder = DecoderConfig(width=32, depth=1, heads=2, latent_size=4, token_dim=32)
    tokenizer = RepTokConfig(encoder=encoder, autoencoder=vae, decoder=decoder)
    compute = ComputeConfig(batch_size=2)
    tables = {
        "images": given(folder, "images", write_images),
        "captions": given(folder, "captions", write_captions),
    }
    for kind, write in (("dataset", write_dataset), ("tokenizer", write_tokenizer)):
        if child(lambda kind=kind, write=write: given(folder, kind, write)) != 0:
            raise RuntimeError(f"no {kind}")
    dataset = Artifact("dataset", "dataset", str(folder / "dataset"))
    trained = Artifact("tokenizer", "tokenizer", str(folder / "tokenizer"))
    return [
        (ImportImages(config), {}),
        (ShardDataset(ShardConfig(image_size=SIZE)), tables),
        (EncodeLatents(EncodeLatentsConfig(vae=vae, encoder=encoder, compute=compute)), {"dataset": dataset}),
        (EncodeTokens(EncodeTokensConfig(compute=compute)), {"dataset": dataset, "tokenizer": trained}),
    ]


def sweep_all(work, folder):
    """Sweep (stage, inputs, moments) one after the other, and print what was found."""
    shards_module._stream = in_this_process
    git_commit()  # asked once, here, and not by every child
    points, faults = [], []
    for number, (stage, inputs, moments_of) in enumerate(work):
        found = sweep(stage, inputs, folder / str(number), moments_of)
        points += found[0]
        faults += found[1]
    print(json.dumps({"points": points, "faults": faults}))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sweep_all([(*given, MOMENTS) for given in prepare(place, Path(sys.argv[2]))], place)
