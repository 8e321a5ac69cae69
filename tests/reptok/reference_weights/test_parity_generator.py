"""The imported mixer gives the authors' numbers."""

import pytest
import torch

from reptok.flow import Euler, time_grid
from reptok.flow.guidance import is_guided
from reptok.flow.path import LINEAR_PATH
from reptok.flow.time import segment_midpoints
from reptok.generator import Condition
from reptok.reference_weights import import_generator

GRADIENTS = {
    "position": "pos_embed",
    "time.mlp.0.weight": "t_embedder.mlp.0.weight",
    "network.linear_in.weight": "mixer.0.weight",
    "network.blocks.0.token_mlp.up.weight": "mixer.1.0.fn.0.weight",
    "network.blocks.1.token_mlp.up.weight": "mixer.2.0.fn.0.weight",
    "network.blocks.0.channel_mlp.0.weight": "mixer.1.1.fn.0.weight",
    "network.blocks.1.channel_mlp.0.weight": "mixer.2.1.fn.0.weight",
}


def close(ours, theirs, absolute=1e-5):
    torch.testing.assert_close(ours.detach(), theirs, atol=absolute, rtol=0)


@pytest.fixture(scope="module", params=["mixer_cls_d48", "mixer_noclass_extra4"])
def case(request, parity):
    data = parity(f"{request.param}.safetensors")
    state = {k.removeprefix("sd."): v for k, v in data.items() if k.startswith("sd.")}
    condition = Condition(labels=data.get("in.y"), extra=data.get("in.extra"))
    return import_generator(state).eval(), data, condition


def test_every_layer_and_the_velocity(case):
    generator, data, condition = case
    network, outputs = generator.network, {}
    layers = [network.linear_in, *network.blocks, network.norm, network.linear_out]
    for i, layer in enumerate(layers):
        layer.register_forward_hook(lambda _, __, y, i=i: outputs.update({f"layer{i}": y}))
    network.linear_in.register_forward_hook(lambda _, x, __: outputs.update(mixer_in=x[0]))
    generator.time.register_forward_hook(lambda _, __, y: outputs.update(t_embed=y))
    close(generator.velocity(data["in.x"], data["in.t"], condition), data["out.v"])
    close(generator.time.features(data["in.t"]), data["out.t_freq"])
    assert len(outputs) == 7
    for name, output in outputs.items():
        close(output, data[f"out.{name}"])


def test_unconditional_and_dropped_labels(case):
    generator, data, condition = case
    if condition.labels is None:
        pytest.skip("this fixture has no classes")
    x, t = data["in.x"], data["in.t"]
    close(generator.velocity(x, t, Condition.null(condition)), data["out.v_uncond"])
    dropped = condition.drop(data["train.dropped"].bool())
    close(generator.velocity(x, t, dropped), data["train.v_labeldrop"])


def test_samples_with_and_without_guidance(case):
    generator, data, condition = case
    noise = data["flow.z"]
    close(generator.sample(condition, noise=noise, num_steps=7), data["flow.generate_s7"])
    if condition.labels is not None:
        everywhere = generator.sample(
            condition, noise=noise, num_steps=7, cfg_scale=1.5, guidance_interval=None
        )
        close(everywhere, data["flow.cfg1.5_s7"])
        inside = generator.sample(condition, noise=noise, num_steps=10, cfg_scale=1.5)
        close(inside, data["flow.cfg1.5_interval0.3-0.9_s10"])


def test_the_way_back_to_noise(case):
    generator, data, condition = case
    start = data["flow.x1"]
    with torch.no_grad():
        back = Euler().solve(
            lambda x, t: generator.velocity(x, t, condition), start, time_grid(7, reverse=True)
        )
    close(back, data["flow.reverse_s7"])


def test_path_and_losses(case):
    generator, data, condition = case
    point = LINEAR_PATH.sample(data["flow.x0"], data["flow.x1"], data["flow.t"])
    close(point.x_t, data["flow.xt"], 1e-6)
    close(point.v_t, data["flow.ut"], 1e-6)
    loss = generator.losses(
        data["flow.x1"], condition, noise=data["flow.train_x0_sampled"], t=data["flow.train_t_sampled"]
    )
    torch.testing.assert_close(loss.mean(), data["flow.train_loss_sampled"][0], rtol=1e-4, atol=0)
    segments = [
        generator.losses(
            data["flow.x1"], condition, noise=data["flow.x0"], t=torch.full((4,), float(t))
        ).mean()
        for t in segment_midpoints(8)
    ]
    torch.testing.assert_close(torch.stack(segments), data["flow.val_segments"], rtol=1e-4, atol=0)


def test_gradients(case):
    generator, data, condition = case
    generator.zero_grad()
    loss = generator.losses(data["flow.x1"], condition, noise=data["flow.x0"], t=data["flow.train_t"]).mean()
    torch.testing.assert_close(loss, data["flow.train_loss_given_x0"][0], rtol=1e-4, atol=0)
    loss.backward()
    for ours, theirs in GRADIENTS.items():
        gradient, wanted = generator.get_parameter(ours).grad, data[f"grad.{theirs}"]
        assert (gradient - wanted.reshape(gradient.shape)).norm() / wanted.norm() < 1e-4, ours


def test_guided_steps(parity):
    fixture = parity("cfg_interval_mask.json")
    for steps, case in fixture["cases"].items():
        times = time_grid(int(steps))[:-1]
        assert times == case["t"]
        assert [is_guided(t, tuple(fixture["interval"])) for t in times] == case["guided"]
