import pytest
import torch

from reptok.flow.time import segment_midpoints
from reptok.generator import Condition, GeneratorConfig, TokenGenerator

SMALL = {"token_dim": 8, "dim": 16, "depth": 2, "heads": 2}


def make(**changes):
    torch.manual_seed(0)
    generator = TokenGenerator(GeneratorConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():  # wake what starts at zero
        for p in generator.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return generator


def text_condition(batch=4, length=5, dim=6):
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(length)[None] < torch.tensor([5, 3, 1, 4])[:batch, None]
    return Condition(text=torch.randn(batch, length, dim, generator=generator), mask=mask)


CASES = {
    "class": ({"condition": "class", "num_classes": 3}, Condition(labels=torch.tensor([0, 1, 2, 0]))),
    "text": ({"condition": "text", "text_dim": 6}, text_condition()),
}
MODELS = [(kind, case) for kind in ("mixer", "transformer") for case in CASES]


@pytest.mark.parametrize(("kind", "case"), MODELS)
def test_the_null_condition_is_what_dropping_gives(kind, case):
    settings, condition = CASES[case]
    generator = make(kind=kind, **settings)
    x, t = torch.randn(4, 1, 8), torch.rand(4)
    conditional = generator.velocity(x, t, condition)
    null = generator.velocity(x, t, Condition.null(condition))
    torch.testing.assert_close(null, generator.velocity(x, t, None), atol=1e-6, rtol=1e-5)
    mixed = generator.velocity(x, t, condition.drop(torch.tensor([True, False, True, False])))
    torch.testing.assert_close(mixed[0::2], null[0::2], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mixed[1::2], conditional[1::2], atol=1e-6, rtol=1e-5)
    assert (conditional - null).abs().amax((1, 2)).min() > 1e-5


@pytest.mark.parametrize(("kind", "case"), MODELS)
def test_guidance_scale_one_is_the_conditional_sample(kind, case):
    settings, condition = CASES[case]
    generator = make(kind=kind, **settings)
    plain = generator.sample(condition, num_steps=4, cfg_scale=1.0)
    nearly = generator.sample(condition, num_steps=4, cfg_scale=1.0 + 1e-7, guidance_interval=None)
    torch.testing.assert_close(plain, nearly, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, generator.sample(condition, num_steps=4, cfg_scale=3.0))


@pytest.mark.parametrize(("kind", "case"), MODELS)
def test_guidance_acts_in_its_interval_alone(kind, case):
    """Guided steps cost two evaluations a sample: of ten steps those from 0.3 to 0.9, both ends included."""
    settings, condition = CASES[case]
    generator = make(kind=kind, **settings)
    sizes = []
    generator.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    inside = generator.sample(condition, num_steps=10, cfg_scale=3.0, guidance_interval=(0.3, 0.9))
    assert sizes == [4] * 3 + [8] * 7
    assert not torch.allclose(
        inside, generator.sample(condition, num_steps=10, cfg_scale=3.0, guidance_interval=None)
    )
    between = generator.sample(condition, num_steps=10, cfg_scale=3.0, guidance_interval=(0.31, 0.39))
    torch.testing.assert_close(between, generator.sample(condition, num_steps=10), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "case"), MODELS)
def test_a_sample_does_not_depend_on_its_batch(kind, case):
    settings, condition = CASES[case]
    generator = make(kind=kind, **settings)
    together = generator.sample(condition, num_steps=4, cfg_scale=2.0, seeds=[5, 6, 7, 8])
    alone = generator.sample(condition.index(slice(2, 3)), num_steps=4, cfg_scale=2.0, seeds=[7])
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "case"), MODELS)
def test_every_parameter_is_in_the_graph(kind, case):
    settings, condition = CASES[case]
    generator = make(kind=kind, **settings).train()
    generator.losses(torch.randn(4, 8), condition).mean().backward()
    assert [n for n, p in generator.named_parameters() if p.grad is None] == []


def test_masked_text_does_not_matter():
    generator, condition = make(condition="text", text_dim=6), text_condition()
    x, t = torch.randn(4, 1, 8), torch.rand(4)
    loud = Condition(
        text=torch.where(condition.mask[..., None], condition.text, torch.tensor(50.0)), mask=condition.mask
    )
    torch.testing.assert_close(generator.velocity(x, t, condition), generator.velocity(x, t, loud))


def test_the_flow_lives_on_normalised_tokens():
    generator = make()
    mean, std = torch.randn(8), torch.rand(8) + 0.5
    noise = torch.randn(3, 1, 8)
    before = generator.sample(noise=noise, num_steps=3)
    tokens, t = torch.randn(3, 1, 8), torch.rand(3)
    loss = generator.losses(tokens, noise=noise, t=t)
    generator.set_token_stats(mean, std)
    torch.testing.assert_close(generator.sample(noise=noise, num_steps=3), before * std + mean)
    torch.testing.assert_close(generator.losses(tokens * std + mean, noise=noise, t=t), loss)
    with pytest.raises(ValueError, match="not positive"):
        generator.set_token_stats(mean, std * 0)


def test_loss_is_the_squared_error_to_data_minus_noise():
    generator = make(condition="class", num_classes=3)
    tokens, noise, t = torch.randn(4, 1, 8), torch.randn(4, 1, 8), torch.rand(4)
    condition = Condition(labels=torch.tensor([2, 0, 1, 1]))
    x_t = (1 - t)[:, None, None] * noise + t[:, None, None] * tokens
    expected = (generator.velocity(x_t, t, condition) - (tokens - noise)).square().mean((1, 2))
    torch.testing.assert_close(generator.losses(tokens, condition, noise=noise, t=t), expected)
    assert generator.losses(tokens[:, 0], condition, noise=noise, t=t).shape == (4,)


def test_dropout_happens_in_training_only_and_at_its_rate():
    generator = make(condition="class", num_classes=3, condition_dropout=1.0)
    tokens, noise, t = (
        torch.randn(4, 1, 8),
        torch.randn(4, 1, 8),
        torch.full((4,), float(segment_midpoints()[3])),
    )
    condition = Condition(labels=torch.tensor([0, 1, 2, 0]))
    given = {"noise": noise, "t": t}
    null = generator.losses(tokens, Condition.null(condition), **given)
    torch.testing.assert_close(generator.train().losses(tokens, condition, **given), null)
    assert not torch.allclose(generator.eval().losses(tokens, condition, **given), null)


def test_several_tokens_and_extra_tokens():
    generator = make(num_tokens=3, num_extra_tokens=2)
    assert generator.config.sequence_length == 6
    extra = Condition(extra=torch.randn(2, 2, 8))
    assert generator.sample(extra, num_steps=2).shape == (2, 3, 8)
    with pytest.raises(ValueError, match="extra"):
        generator.velocity(torch.randn(2, 3, 8), torch.rand(2))
    with pytest.raises(ValueError, match=r"tokens must be \(B, 3, 8\)"):
        generator.velocity(torch.randn(2, 1, 8), torch.rand(2), extra)


def test_conditions_repeat_and_join_in_order():
    labels = Condition(labels=torch.tensor([4, 9]))
    assert labels.repeat(2).labels.tolist() == [4, 4, 9, 9]
    both = Condition.concat(Condition.null(labels), labels)
    assert both.labels.tolist() == [4, 9, 4, 9] and both.dropped.tolist() == [True, True, False, False]
    assert len(labels) == 2
    with pytest.raises(ValueError, match="no batch size"):
        len(Condition())


def test_a_tensor_of_labels_is_a_condition():
    torch.manual_seed(0)
    generator = TokenGenerator(GeneratorConfig(condition="class", num_classes=5, token_dim=8, dim=8, depth=1))
    labels, x, t = torch.tensor([1, 4]), torch.randn(2, 1, 8), torch.rand(2)
    wanted = Condition(labels=labels)
    assert torch.equal(generator.velocity(x, t, labels), generator.velocity(x, t, wanted))
    assert torch.equal(generator.sample(labels, num_steps=2), generator.sample(wanted, num_steps=2))
    with pytest.raises(ValueError, match=r"must hold labels, integers \(B,\)"):
        generator.sample(torch.randn(2, 3, 8))


def test_what_a_user_can_get_wrong():
    with pytest.raises(ValueError, match="num_classes"):
        GeneratorConfig(condition="class")
    with pytest.raises(ValueError, match="text_dim"):
        GeneratorConfig(condition="text")
    with pytest.raises(ValueError, match="labels must lie in 0"):
        make(condition="class", num_classes=3).sample(Condition(labels=torch.tensor([4])), num_steps=1)
    with pytest.raises(ValueError, match=r"multiple of generator\.heads"):
        make(kind="transformer", heads=3)
