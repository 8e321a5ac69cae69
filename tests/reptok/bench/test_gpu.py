"""The command for a GPU runs from a checkout, measures what it says, and one failure loses no other row."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reptok.bench import clock, gpu, measure
from reptok.bench.clock import Timing, time_steps
from reptok.bench.feed import feed, write_latents
from reptok.bench.networks import vae_decoder, vae_encoder
from reptok.bench.recipe import bench_named
from reptok.bench.result import Goal, Result
from reptok.bench.sizes import TINY
from reptok.bench.trainings import Settings, Training, tokenizer_training
from reptok.data.blocks import iterate_blocks
from reptok.generator.mixer import Mixer
from reptok.training.blocks import compile_blocks

REPOSITORY = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
FAST = Goal(field="per_second", bound=20.0, at_least=True, text=">= 20 images/s")
ABSENT = (
    "diffusers hydra mlflow open_clip pandas pipelines pyarrow ray scipy sklearn torchdiffeq transformers"
)
PROGRAM = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition('.')[0] in {ABSENT.split()} else self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.argv = ['reptok', 'bench', 'gpu', '--seconds', '0.05', '--device', 'cpu']
from reptok.cli import main
main()
"""


@pytest.fixture(scope="module")
def table():
    """What the command prints where only torch, timm, einops, safetensors and typer are installed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_row_is_there_and_tiny_sizes_are_said(table):
    assert "No GPU: everything is tiny and on the CPU" in table
    names = [line.split()[0] for line in table.splitlines()[4:] if line and not line.startswith(" ")]
    assert names[:-1] == [
        "G1", "G11", "G12", "G2", "G7", "G8", "sync", "sync", "G4", "G5", "G9", "G6", "G2", "text",
        "DDP", "FSDP", "C10b", "C10b",
    ]  # fmt: skip
    assert "12,000 samples on disk" in table and "waits for data" in table
    assert "diffusers is not installed" in table
    assert "failed" not in table and "short of its goal" not in table, "tiny sizes are not judged"


@pytest.mark.slow
def test_images_per_second_are_the_batch_over_the_step(table):
    for line in table.splitlines():
        if line.startswith(("G1 ", "G2 ", "G7 ", "G8 ")):
            if "idle" in line:
                continue
            numbers = [float(word.replace(",", "")) for word in line[58:].split()[:4]]
            batch, milliseconds, slow, images = numbers
            assert images == pytest.approx(1e3 * batch / milliseconds, rel=0.01, abs=0.6)
            assert slow >= milliseconds


def test_one_row_that_fails_is_named_and_the_others_stay(monkeypatch):
    def fail(bench):
        raise RuntimeError("no kernel")
        yield

    monkeypatch.setattr(gpu, "PARTS", {"decoder": fail, "tokenizer": gpu.PARTS["tokenizer"]})
    said = []
    assert gpu.run(CPU, seconds=0.01, say=said.append) == 1
    assert any("failed: RuntimeError: no kernel" in line for line in said)
    assert [line.split()[0] for line in said if line.startswith("G")] == ["G2"]
    assert any(line.startswith("not measured: decoder;") for line in said)


def test_what_was_measured_is_kept_and_what_was_not_is_measured(monkeypatch, tmp_path):
    calls = []

    def part(name):
        def rows(bench):
            calls.append(name)
            if calls.count(name) == 1 and name == "b":
                raise RuntimeError("lost")
            yield Result.of(name, "a step", 8, Timing(0.5, 3, 10**9, 0.6), 1e9, ceiling=1e12, goal=FAST)

        return rows

    monkeypatch.setattr(gpu, "PARTS", {"a": part("a"), "b": part("b")})
    said, file = [], tmp_path / "bench.json"
    assert gpu.run(CPU, file=file, say=said.append) == 1
    assert gpu.run(CPU, file=file, say=said.append) == 0
    assert calls == ["a", "b", "b"]
    assert gpu.run(CPU, file=file, budget_seconds=-1.0, say=said.append) == 0 and calls == ["a", "b", "b"]
    assert json.loads(file.read_text())["parts"]["a"][0]["per_second"] == 16
    other = json.loads(file.read_text())
    other["machine"]["torch"] = "1.0"
    file.write_text(json.dumps(other))
    assert gpu.run(CPU, file=file, budget_seconds=-1.0, say=said.append) == 2, "figures of another torch"
    assert (
        said[-2]
        == "not measured: a (no time left), b (no time left); with --file the same command goes on with these"
    )


def test_what_falls_short_is_said():
    found = Result.of("G1", "a step", 8, Timing(0.5, 3, 0), 1e9, goal=FAST)
    assert found.shortfall() == "G1 a step: 16, goal >= 20 images/s"
    assert Result.of("G1", "a step", 8, Timing(0.4, 3, 0), 1e9, goal=FAST).shortfall() is None
    assert Result.of("G1", "a step", 8, Timing(0.4, 3, 0), 1e9).shortfall() is None


def test_the_stand_ins_are_as_large_as_what_they_stand_for():
    """In GMAC a 256 px image: the autoencoder of Stable Diffusion needs 136.4 and 311.1."""
    for network, shape, expected in ((vae_encoder, (3, 256, 256), 136.4), (vae_decoder, (4, 32, 32), 311.1)):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network()(torch.empty(1, *shape))
        assert counter.get_total_flops() / 2e9 == pytest.approx(expected, rel=0.01)


def test_a_batch_that_does_not_fit_is_halved():
    built = []

    def build(settings):
        built.append(settings.batch_size)
        if settings.batch_size > 3:
            raise torch.OutOfMemoryError
        return Training(lambda batch: None, None, settings.batch_size, 1)

    settings = Settings(device=CPU, batch_size=12)
    assert measure.measure(build, settings, 1.0, seconds=0.01).training.batch_size == 3
    assert built == [12, 6, 3]
    # 8 steps of the batch at 100 FLOP/s and 10 FLOP an image in 4 seconds
    found = measure.measure(build, settings, 100.0, seconds=4.0, flops_per_image=25)
    assert found.training.batch_size == 2


def test_recomputation_and_accumulation_change_nothing_but_the_cost():
    ends = []
    for more in ({}, {"recompute": "full", "accumulate": 3}):
        torch.manual_seed(0)
        training = tokenizer_training(TINY.tokenizer, Settings(device=CPU, batch_size=6, **more))
        training.step(training.batch)
        ends.append(training.state.weights["tokenizer.decoder.sequence_in.weight"].detach())
    torch.testing.assert_close(*ends, atol=1e-6, rtol=1e-5)


def test_speed_and_utilisation_follow_from_the_step():
    training = Training(lambda batch: None, None, batch_size=64, flops_per_image=773_000_000_000)
    found = measure.Measured(training, Timing(0.128, 10, 0), ceiling=798e12)
    assert found.images_per_second == pytest.approx(500)
    assert found.flops_per_second == pytest.approx(386.5e12)
    assert found.utilisation == pytest.approx(0.484, abs=1e-3)


def test_steps_before_the_clock_are_not_timed(monkeypatch):
    calls = []
    timing = time_steps(lambda: calls.append(None), CPU, seconds=0.0, warmup=4)
    assert (timing.steps, len(calls)) == (3, 2 + 1 + 3) and timing.peak_bytes > 1e7
    calls.clear()
    monkeypatch.setattr(clock, "MOST", 7)
    assert time_steps(lambda: calls.append(None), CPU, seconds=60.0, warmup=4).steps == 7
    assert len(calls) == 4 + 1 + 7


def test_durations_on_a_gpu_lie_between_its_own_events(monkeypatch):
    """They are in milliseconds there; the pause before the last synchronisation is nobody's."""
    queue = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            queue.append(self)
            self.at = 100.0 * len(queue) ** 2

        def elapsed_time(self, end):
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    work = [lambda: queue.append("work")] * 2
    assert clock._on_gpu(work, torch.device("cuda")) == pytest.approx([0.8, 1.6])
    assert [type(item).__name__ for item in queue] == ["Event", "str", "Event", "str", "Event"]


def test_a_training_is_the_real_one():
    """The weights move, and without images the [cls] embedding does not."""
    settings = Settings(device=CPU, batch_size=2)
    for images in (True, False):
        training = tokenizer_training(TINY.tokenizer, settings, images=images)
        found = training.state
        before = {name: weight.detach().clone() for name, weight in found.weights.items()}
        training.step(training.batch)
        moved = {name for name, weight in found.weights.items() if not torch.equal(weight, before[name])}
        assert ("tokenizer.encoder.embedding" in moved) == images
        assert "tokenizer.decoder.patch_out.weight" in moved and found.step == 1


def test_the_loader_feeds_what_lies_on_disk(tmp_path):
    data = write_latents(tmp_path, TINY.tokenizer.decoder, samples=5000)
    assert data.rows == [4000, 1000]
    stored = np.concatenate(
        [block["moments"] for path in sorted(tmp_path.iterdir()) for block in iterate_blocks(path)]
    )
    batch = data.read(np.array([4999, 3]), np.array([True, False]))
    assert np.array_equal(batch.moments.numpy(), stored[[4999, 3], [1, 0]].astype(np.float32))
    seen = []
    training = Training(lambda batch: seen.append(batch), "resident", 500, 1)
    feed(training, data, CPU, seconds=0.0)
    fed = [batch.samples for batch in seen if batch != "resident"]
    assert len(fed) == 1 + 5 * 2 and len(np.unique(np.concatenate(fed[:10]))) == 5000


def test_blocks_of_a_stack_share_one_compilation():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    mixer = Mixer(token_dim=8, num_tokens=3, dim=8, depth=12, tokens_mlp_dim=6, channels_mlp_dim=16)
    inputs = torch.randn(2, 2, 8), torch.randn(2, 8)
    expected = mixer(*inputs)
    compile_blocks(mixer, "aot_eager")
    torch.testing.assert_close(mixer(*inputs), expected, atol=1e-6, rtol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_named_sizes_are_judged():
    with pytest.raises(ValueError, match="'unet' is not one of tokenizer, decoder, generator"):
        bench_named("unet", "S", "dinov2_vits14_reg", "class", CPU, 1, say=print)
    with pytest.raises(ValueError, match="'float8' is not one of"):
        bench_named("decoder", "S", "dinov2_vits14_reg", "class", CPU, 1, "float8", say=print)
