import math
import re

import pytest
import torch
from torch import nn

from reptok.generator import GeneratorConfig, TokenGenerator
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.optim import AdamW, Role, clip_scale, gradient_norm, lr_factor, roles_of
from tests.fixtures.tiny_tokenizer import tiny_tokenizer


def test_warm_up_is_linear_and_then_constant():
    config = OptimConfig(warmup_steps=4)
    assert [lr_factor(step, 100, config) for step in (0, 1, 2, 3, 4, 99)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_follows_its_closed_form():
    config = OptimConfig(warmup_steps=10, schedule="cosine", final_lr=0.1)
    assert lr_factor(10, 110, config) == 1.0
    assert lr_factor(60, 110, config) == pytest.approx(0.55)
    assert lr_factor(85, 110, config) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.75)))
    assert lr_factor(110, 110, config) == pytest.approx(0.1)


def test_linear_and_warm_up_stable_decay_end_where_they_shall():
    linear = OptimConfig(warmup_steps=10, schedule="linear", final_lr=0.2)
    assert [lr_factor(step, 110, linear) for step in (10, 60, 110)] == pytest.approx([1.0, 0.6, 0.2])
    stable = OptimConfig(warmup_steps=10, schedule="wsd", decay_steps=20)
    assert [lr_factor(step, 110, stable) for step in (4, 10, 90, 100, 105, 110)] == pytest.approx(
        [0.5, 1.0, 1.0, 0.5, 0.25, 0.0]
    )
    longer = [lr_factor(step, 1010, stable) for step in (50, 90, 989)]
    assert longer == [1.0] * 3, "up to the decay a longer training is the same"


def test_a_decay_that_does_not_fit_is_refused():
    optim = OptimConfig(warmup_steps=10, schedule="wsd", decay_steps=20)
    TrainConfig(steps=30, batch_size=1, optim=optim)
    with pytest.raises(ValueError, match="20 after warmup_steps 10 do not fit into"):
        TrainConfig(steps=29, batch_size=1, optim=optim)
    with pytest.raises(ValueError, match=r"schedule wsd needs .*decay_steps"):
        OptimConfig(schedule="wsd")


def adamw_by_hand(weight, gradients, lr, decay, beta1, beta2, eps):
    first = second = torch.zeros_like(weight)
    for count, gradient in enumerate(gradients, start=1):
        weight = weight * (1 - lr * decay)
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        corrected = (second / (1 - beta2**count)).sqrt() + eps
        weight = weight - lr * first / (1 - beta1**count) / corrected
    return weight


def test_the_update_is_adamw():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 4))
    gradients = [torch.randn(5, 4) for _ in range(6)]
    config = OptimConfig(lr=0.02, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)
    expected = adamw_by_hand(weight.detach().clone(), gradients, 0.01, 0.3, 0.8, 0.95, 1e-6)
    optimizer = AdamW({"linear.weight": weight}, config, {"linear.weight": Role()})
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step(0.5)
    assert torch.allclose(weight, expected, atol=1e-6)


def test_only_matrices_decay_and_the_embedding_has_its_own_rate():
    """Without gradients decay alone moves a weight; with them the first step has the length of the rate."""
    names = ("linear.weight", "tokenizer.encoder.embedding", "norm.weight")
    shapes = ((2, 3), (1, 3), (3,))
    parameters = {name: nn.Parameter(torch.ones(shape)) for name, shape in zip(names, shapes, strict=True)}
    roles = dict(zip(names, (Role(), Role("cls", decays=False), Role(decays=False)), strict=True))
    optimizer = AdamW(parameters, OptimConfig(lr=0.1, weight_decay=0.5, cls_lr_scale=10.0), roles)
    optimizer.step(1.0)
    assert [round(float(p.detach().mean()), 6) for p in parameters.values()] == [0.95, 1.0, 1.0]
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    fresh = AdamW(parameters, OptimConfig(lr=0.1, cls_lr_scale=10.0), roles)
    before = [p.detach().clone() for p in parameters.values()]
    fresh.step(1.0)
    moved = [float((b - p.detach()).mean()) for b, p in zip(before, parameters.values(), strict=True)]
    assert moved == pytest.approx([0.1, 1.0, 0.1], rel=1e-5)


def test_roles_are_those_of_the_modules(tiny_models):
    """Linear maps and convolutions of real models decay, and nothing else that they have."""
    tokenizer = tiny_tokenizer(tiny_models, "everything")
    roles = roles_of(tokenizer)
    trained = {name for name, parameter in tokenizer.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if roles[name].lr == "cls"} == {"encoder.embedding"}
    mapping = {name for name in trained if roles[name].lr == "mapping"}
    assert mapping and all(
        re.match(r"decoder\.(time\.|blocks\.0\.\w+_norm\.linear)", name) for name in mapping
    )
    kept = {name for name in trained if not roles[name].decays}
    scales = {"decoder.blocks.0.attention.scale", "projection.linear.bias", "projection.norm.weight"}
    assert {"encoder.embedding", "encoder.vit.pos_embed", "projection.offset", *scales} <= kept
    maps = {"projection.linear.weight", "decoder.blocks.0.ff.up.weight", "decoder.time.project.weight"}
    assert {
        "encoder.vit.blocks.0.attn.qkv.weight",
        "encoder.vit.patch_embed.proj.weight",
        *maps,
    } <= trained - kept
    assert all(dict(tokenizer.named_parameters())[name].ndim > 1 for name in trained - kept)


@pytest.mark.parametrize("kind", ["mixer", "transformer"])
@pytest.mark.parametrize("condition", ["class", "text"])
def test_what_a_generator_holds_itself_does_not_decay(kind, condition):
    generator = TokenGenerator(
        GeneratorConfig(
            kind=kind, condition=condition, num_classes=3, text_dim=6, token_dim=8, dim=16, heads=2
        )
    )
    kept = {name for name, role in roles_of(generator).items() if not role.decays}
    own = {name for name in kept if not re.search(r"(bias|norm\w*\.weight|norm)$", name)}
    positions = {"position"} if kind == "mixer" else {"network.position"}
    told = {"classes.table.weight"} if condition == "class" else {"text.null_text"}
    learned = {"learned_tokens"} if kind == "mixer" and condition == "text" else set()
    assert own == positions | told | learned
    assert {role.lr for role in roles_of(generator).values()} == {""}


def test_a_role_has_its_rate_and_its_decay():
    config = OptimConfig(lr=3.0, mapping_lr_scale=1 / 3, weight_decay=0.5, cls_lr_scale=2.0)
    assert Role("mapping").group(config) == (1.0, 0.5)
    assert Role("mapping", decays=False).group(config) == (1.0, 0.0)
    assert Role().group(config) == (3.0, 0.5)
    assert Role("cls", decays=False).group(config) == (6.0, 0.0)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="nothing to train"):
        AdamW({}, OptimConfig(), {})


def test_clipping_divides_by_what_is_above_the_norm():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    norm = gradient_norm([weight])
    assert float(norm) == 5.0 and clip_scale(norm, 0.0) is None
    assert float(clip_scale(norm, 10.0)) == 1.0
    assert float(clip_scale(norm, 2.0)) == pytest.approx(2.5)


def test_the_update_takes_the_scale_and_a_skipped_one_leaves_everything():
    """The first update of Adam does not see a scale, the second does."""
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([-1.0, 2.0])]
    config = OptimConfig(lr=0.1, beta1=0.8, beta2=0.9, eps=1e-6)
    whole, divided = (nn.Parameter(torch.ones(2)) for _ in range(2))
    roles = {"w": Role()}
    one, other = AdamW({"w": whole}, config, roles), AdamW({"w": divided}, config, roles)
    for number, gradient in enumerate(gradients):
        scale = torch.tensor(4.0 if number else 1.0)
        whole.grad, divided.grad = gradient / scale, gradient.clone()
        one.step(1.0)
        other.step(1.0, scale=scale, skipped=torch.tensor(0.0))
        assert torch.allclose(whole, divided, rtol=1e-6)
    before = [divided.detach().clone(), *(t.clone() for t in other.tensors().values())]
    divided.grad = torch.tensor([float("nan"), 1.0])
    other.step(1.0, scale=torch.tensor(2.0), skipped=torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, [divided, *other.tensors().values()], strict=True))
    assert float(other.tensors()["steps/w"]) == 2.0
