"""The real tokenizer and generators: whole and in two halves, in parts and at once, compiled and not."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from reptok.data.batch import TokenizerBatch
from reptok.data.stream import Batches
from reptok.data.transforms import to_float
from reptok.training.curves import means, straggler
from reptok.training.objectives import TokenizerObjective
from reptok.training.state import TrainState, trained_buffers
from reptok.training.step import NonFiniteError, StepRandom, TrainStep

STEPS, BATCH = 8, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory, trainings, small_dataset, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


@pytest.fixture
def begin(trainings, tiny_models, data):
    """`begin("class", config)` starts a training."""
    return lambda kind, config=trainings.CONFIG, **how: trainings.Training(
        kind, tiny_models, data, config, **how
    )


def same(a: TrainState, b: TrainState) -> bool:
    left, right = a.tensors(), b.tensors()
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("kind", "halves"),
    [
        ("tokenizer", (2, 3, 5)),
        ("decoder_first", (2, 3, 5)),
        ("text", (3,)),
        pytest.param("text", (2, 5), marks=pytest.mark.slow),
        pytest.param("class", (2, 3, 5), marks=pytest.mark.slow),
    ],
)
def test_a_training_in_two_halves_is_the_whole_bit_by_bit(
    kind, halves, begin, trainings, tiny_models, tmp_path
):
    whole = begin(kind).run(STEPS)
    start = dict(trainings.objective_of(kind, tiny_models).named_parameters())
    assert any(not torch.equal(weight, start[name]) for name, weight in whole.state.weights.items())
    for half in halves:
        first = begin(kind).run(half)
        checkpoints = first.checkpoints(tmp_path / str(half))
        checkpoints.save()
        checkpoints.wait()
        second = begin(kind)
        second.checkpoints(tmp_path / str(half)).load_newest()
        assert (second.state.step, second.state.samples) == (half, half * BATCH)
        assert same(second.run(STEPS).state, whole.state)


@pytest.mark.parametrize("kind", ["tokenizer", pytest.param("class", marks=pytest.mark.slow)])
def test_a_resume_does_not_depend_on_the_random_numbers_of_its_own_start(kind, begin, tmp_path):
    """Other library versions draw more or fewer numbers before: weights *and* buffers come from the file."""
    whole = begin(kind).run(STEPS)
    first = begin(kind).run(3)
    checkpoints = first.checkpoints(tmp_path)
    checkpoints.save()
    checkpoints.wait()
    second = begin(kind, seed=7)
    buffers = dict(second.objective.named_buffers())
    drawn = {name: buffer.clone() for name, buffer in buffers.items()}
    second.checkpoints(tmp_path).load_newest()
    if kind == "tokenizer":
        name = "tokenizer.decoder.time.features.weight"
        assert not torch.equal(buffers[name], drawn[name])
    assert same(second.run(STEPS).state, whole.state)


def test_buffers_of_frozen_networks_are_not_saved():
    model = nn.ModuleDict({"trains": nn.BatchNorm1d(2), "frozen": nn.BatchNorm1d(2).requires_grad_(False)})
    model["trains"].register_buffer("scratch", torch.zeros(1), persistent=False)
    assert set(trained_buffers(model)) == {
        "trains.running_mean", "trains.running_var", "trains.num_batches_tracked",
    }  # fmt: skip


def test_the_rhythm_of_log_evaluation_and_checkpoint(begin, trainings):
    training = begin("class").run(STEPS)
    assert [step for step, values in training.logged if "train/loss" in values] == [3, 6, 8]
    assert [step for step, values in training.logged if "val/step" in values] == [4, 8]
    assert training.saved == [STEPS]
    often = begin("class", replace(trainings.CONFIG, checkpoint_every_seconds=0.0)).run(3)
    assert often.saved == [2, 3]  # what was asked in the first step is known after the second


def test_a_stop_saves_and_leaves_and_a_warning_saves_once_and_goes_on(begin):
    training = begin("class")
    assert training.run(STEPS, stop=lambda: training.state.step == 4).state.step == training.saved[-1] == 6
    warned = begin("class").run(STEPS, preempted=lambda: True)
    assert warned.saved == [3, STEPS]  # asked when the curves get an entry


def test_a_resumed_training_tells_again_what_a_kill_may_have_lost(begin, trainings):
    config = replace(trainings.CONFIG, log_every=1, eval_every=0)
    first = begin("class", config)
    first.run(5, save=lambda: None)
    counters = first.state.counters()
    second = begin("class", config)
    second.state.load(first.state.tensors(), counters)
    second.run(STEPS)
    steps = [step for step, values in second.logged if "train/loss" in values]
    assert steps[-3:] == [6, 7, 8] and set(steps) == set(range(1, 9))
    losses = dict((step, values["train/loss"]) for step, values in first.logged if "train/loss" in values)
    told = dict((step, values["train/loss"]) for step, values in second.logged if "train/loss" in values)
    assert {step: told[step] for step in losses} == losses


@pytest.mark.parametrize("kind", ["tokenizer", "text"])
def test_accumulation_is_the_large_batch(kind, begin, trainings):
    whole = begin(kind).run(4)
    for parts in (2, 3):
        divided = begin(kind, replace(trainings.CONFIG, accumulate=parts)).run(4)
        for name, value in whole.state.tensors().items():
            assert torch.allclose(divided.state.tensors()[name], value, rtol=1e-4, atol=1e-5), name
        (_, one), (_, other) = (training.logged[0] for training in (whole, divided))
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)


@pytest.mark.parametrize("kind", ["tokenizer", pytest.param("class", marks=pytest.mark.slow)])
def test_recomputed_is_the_same_bit_by_bit(kind, begin):
    plain = begin(kind).run(3)
    for what in ("selective", "full"):
        assert same(begin(kind, recompute=what).run(3).state, plain.state)


@pytest.mark.parametrize(
    ("kind", "recompute"),
    [
        ("tokenizer", "selective"),
        *(
            pytest.param(kind, recompute, marks=pytest.mark.slow)
            for kind in ("tokenizer", "class")
            for recompute in ("none", "selective", "full")
            if (kind, recompute) != ("tokenizer", "selective")
        ),
    ],
)
def test_compiled_is_the_same_up_to_rounding(kind, recompute, begin):
    plain = begin(kind).run(3)
    compiled = begin(kind, compile=True, backend="aot_eager", recompute=recompute).run(3)
    for name, value in plain.state.tensors().items():
        assert torch.allclose(compiled.state.tensors()[name], value, rtol=1e-4, atol=1e-5), name


def test_cached_is_online(begin):
    """Cached moments and frozen tokens give the losses and gradients of a step that computes them."""
    training = begin("tokenizer")
    objective, tokenizer = training.objective, training.objective.tokenizer
    nn.init.normal_(tokenizer.decoder.patch_out.weight, std=0.1)
    pixels = training.batches.read(0).images
    images = to_float(pixels)
    moments = tokenizer.autoencoder.encode_moments(images)
    frozen = tokenizer.encoder.frozen(images)
    draws = StepRandom(0, 0, BATCH, slice(0, BATCH))
    cached = objective(TokenizerBatch(pixels, moments, frozen, np.arange(BATCH)), draws)
    cached["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad()
    draws = StepRandom(0, 0, BATCH, slice(0, BATCH))
    latents = tokenizer.autoencoder.latents_from_moments(
        tokenizer.autoencoder.encode_moments(images), draws.normal(4, 4, 4)
    )
    online = tokenizer.losses(
        images, latents=latents, noise=draws.normal(4, 4, 4), t=draws.times("logit_normal")
    )
    loss = online.velocity.mean() + objective.preservation_weight * online.preservation.mean()
    loss.backward()
    assert torch.allclose(cached["loss"], loss, rtol=1e-6)
    assert "tokenizer.encoder.embedding" in gradients
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, dict(objective.named_parameters())[name].grad, atol=1e-6), name


def test_bfloat16_keeps_weights_and_losses_in_float32(begin):
    whole, half = begin("class"), begin("class")
    half.step = TrainStep(half.parallel, half.state, half.config.optim, STEPS, precision="bfloat16")
    first, second = (training.run(1).logged[0][1]["train/loss"] for training in (whole, half))
    assert first != second and first == pytest.approx(second, rel=2e-2)
    assert all(weight.dtype == torch.float32 for weight in half.state.tensors().values())


def test_losses_by_segment_of_time_sum_to_the_loss(begin):
    training = begin("tokenizer")
    batch, draws = training.batches.read(0), StepRandom(0, 0, BATCH, slice(0, BATCH))
    values = training.step(batch, draws).read()
    counts = [values[f"segment_count_{k}"] for k in range(8)]
    assert sum(counts) == BATCH
    assert sum(values[f"segment_sum_{k}"] for k in range(8)) / BATCH == pytest.approx(values["velocity"])
    again = StepRandom(0, 0, BATCH, slice(0, BATCH))
    for _ in range(2):  # posterior and starting noise come first
        again.normal(4, 4, 4)
    assert counts == torch.histc(again.times("logit_normal"), 8, 0, 1).tolist()
    named = means({**values, "count": 1.0})
    assert {name for name in named if "segment" in name} == {
        f"train/loss_segment_{k}" for k, count in enumerate(counts) if count
    }


def test_the_tokenizer_learns_and_moves_only_what_is_adapted(begin):
    training = begin("tokenizer")
    frozen = {n: p.clone() for n, p in training.objective.named_parameters() if not p.requires_grad}
    training.run(STEPS)
    losses = [values["train/loss"] for _, values in training.logged if "train/loss" in values]
    assert losses[-1] < losses[0]
    now = dict(training.objective.named_parameters())
    assert frozen and all(torch.equal(value, now[name]) for name, value in frozen.items())
    assert {"train/velocity", "train/preservation", "train/grad_norm"} <= training.logged[0][1].keys()


def test_the_encoder_waits_until_batches_have_images(begin):
    training = begin("decoder_first")
    embedding = training.objective.tokenizer.encoder.embedding
    before = embedding.clone()
    training.run(3)
    assert torch.equal(embedding, before)
    assert training.logged[0][1]["train/preservation"] == pytest.approx(0, abs=1e-6)
    training.run(STEPS)
    assert not torch.equal(embedding, before)


def test_a_step_without_finite_gradient_changes_nothing_and_many_stop(begin):
    training = begin("class")
    before = {name: tensor.clone() for name, tensor in training.state.tensors().items()}
    batch = training.batches.read(0)
    batch.tokens[1, 0, 3] = float("nan")
    step = TrainStep(training.parallel, training.state, training.config.optim, STEPS, max_skipped=3)
    draws = [StepRandom(0, number, BATCH, slice(0, BATCH)) for number in range(4)]
    assert step(batch, draws[0]).read() == step(batch, draws[1]).read() == {"skipped": 1.0}
    after = training.state.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(NonFiniteError, match=str(batch.samples.tolist())[1:-1]):
        step(batch, draws[2]).read()


def test_logit_normal_times_have_the_location_and_scale_that_are_asked_for(trainings, tiny_models, data):
    """Their logits are normal: mean and deviation of many draws, and through the objective the same ones."""
    draws = StepRandom(3, 0, 20_000, slice(0, 20_000))
    logits = torch.logit(draws.times("logit_normal", -0.7, 0.4).double())
    assert float(logits.mean()) == pytest.approx(-0.7, abs=0.01)
    assert float(logits.std()) == pytest.approx(0.4, abs=0.01)
    tokenizer = trainings.tokenizer(tiny_models)
    objective = TokenizerObjective(tokenizer, 0.1, "logit_normal", time_loc=-4.0, time_scale=0.1)
    batch = Batches(trainings.data_of("tokenizer", data), BATCH, 0).read(0)
    sums, counts = objective(batch, StepRandom(3, 0, BATCH, slice(0, BATCH)))["segments"]
    assert counts.tolist() == [BATCH, *[0] * 7], "next to noise"
    assert sums[0] > 0


def test_the_process_that_waits_for_its_data_is_named():
    waits = {"wait_of_rank_0": 0.1, "wait_of_rank_1": 4.0, "wait_of_rank_2": 0.2, "loss": 9.0}
    assert straggler(waits, 10.0).startswith("rank 1 waited 4.0 of 10.0 s for its data, the others 0.2 s")
    assert straggler(waits, 100.0) is None, "4 % of the time is not worth a line"
    assert straggler({**waits, "wait_of_rank_0": 3.0, "wait_of_rank_2": 3.0}, 10.0) is None, "all wait alike"
    assert straggler({"wait_of_rank_0": 4.0}, 10.0) is None


def test_the_process_that_computes_more_slowly_is_named():
    work = {"work_of_rank_0": 3.0, "work_of_rank_1": 3.1, "work_of_rank_2": 4.0, "wait_of_rank_0": 0.1}
    assert straggler(work, 10.0).startswith("rank 2 computed its forward passes in 4.0 of 10.0 s, the others")
    assert straggler(work, 100.0) is None
    assert means({**work, "count": 1.0, "loss": 2.0}) == {"train/skipped": 0.0, "train/loss": 2.0}


def test_the_forward_passes_are_timed(begin, trainings):
    training = begin("class", replace(trainings.CONFIG, accumulate=2))
    inner = training.objective.generator.network.register_forward_hook(lambda *a: time.sleep(0.05))
    training.run(1)
    assert training.step.clock.seconds >= 0.1
    inner.remove()


def test_garbage_is_collected_where_curves_get_an_entry_and_nowhere_else(begin):
    import gc

    passes, before = [], gc.get_threshold()
    training = begin("class")
    gc.callbacks.append(lambda phase, info: passes.append(training.state.step) if phase == "stop" else None)
    try:
        gc.set_threshold(1, 1, 1)
        training.run(STEPS)
    finally:
        gc.callbacks.pop()
        gc.set_threshold(*before)
    during = [step for step in passes if step > 0]
    assert set(during) <= {3, 6, 8} and {3, 6} <= set(during)
    assert gc.isenabled()
