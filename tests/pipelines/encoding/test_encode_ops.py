"""Encoded batches: what they hold, and that a row does not depend on its neighbours."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode

from pipelines.encoding.device import ComputeConfig
from pipelines.encoding.latents import EncodeLatents
from pipelines.stages.evaluate_generator import EvaluateGenerator, EvaluateGeneratorConfig
from pipelines.stages.evaluate_tokenizer import EvaluateTokenizer, EvaluateTokenizerConfig
from reptok.attention import preferred
from reptok.configs import AutoencoderConfig, EncoderConfig
from reptok.data.transforms import to_float


@pytest.fixture(scope="module")
def op(tiny_models):
    op = EncodeLatents(
        AutoencoderConfig(path=str(tiny_models / "autoencoder")),
        EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32),
        ComputeConfig(),
    )
    op.setup()
    return op


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_moments_are_the_vaes_own(op, images, tiny_models):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tiny_models / "autoencoder").eval()
    with torch.no_grad():
        expected = vae.encode(to_float(images)).latent_dist.parameters
    moments = op({"image": images})["moments"]
    assert moments.dtype == np.float16
    assert moments.shape == (5, 2, 8, 4, 4)
    np.testing.assert_allclose(moments[:, 0], expected.numpy(), rtol=1e-3, atol=1e-4)


def test_second_variant_is_the_mirrored_image(op, images):
    batch = op({"image": images})
    mirrored = op({"image": np.ascontiguousarray(images[:, :, ::-1])})
    for column in op.writes:
        np.testing.assert_allclose(batch[column][:, 1], mirrored[column][:, 0], rtol=1e-3, atol=1e-5)
        assert np.abs(batch[column][:, 1] - batch[column][:, 0]).max() > 1e-2


def test_frozen_token_is_timms_normalised_class_token(op, images, tiny_models):
    import timm

    vit = timm.create_model(f"local-dir:{tiny_models / 'encoder'}", pretrained=True).eval()
    mean, std = (torch.tensor(vit.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = vit.forward_features(((to_float(images) + 1) / 2 - mean) / std)[:, :1]
    token = op({"image": images})["frozen_token"]
    assert token.dtype == np.float32
    assert token.shape == (5, 2, 1, 32)
    np.testing.assert_allclose(token[:, 0], expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_its_batch(op, images):
    together = op({"image": images})
    alone = [op({"image": images[i : i + 1]}) for i in range(5)]
    for column in op.writes:
        np.testing.assert_allclose(
            together[column].astype(np.float32),
            np.concatenate([row[column] for row in alone]),
            rtol=2e-3,
            atol=1e-4,
        )


def test_columns_that_came_in_stay(op, images):
    batch = op({"image": images, "key": list("abcde")})
    assert batch["key"] == list("abcde")
    assert set(batch) == {"image", "key", *op.writes}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "device must be"),
        ({"precision": "int8"}, "precision must be"),
        ({"precision": "bfloat16"}, "needs device=cuda"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_impossible_compute_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ComputeConfig(**settings)


def test_absent_gpu_is_said():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="sees no GPU"):
        ComputeConfig(device="cuda").prepare()


class Kernels(TorchFunctionMode):
    """Notes which kernel comes first whenever attention is computed."""

    def __init__(self):
        super().__init__()
        self.first = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            self.first.append(torch._C._get_sdp_priority_order()[0])
        return function(*arguments, **(keywords or {}))


def test_attention_is_computed_by_the_kernel_that_the_device_prefers(op, images, monkeypatch):
    """As on a Hopper GPU, though it computes on the CPU."""
    usual = torch._C._get_sdp_priority_order()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (9, 0))
    asked = []
    monkeypatch.setattr(
        "pipelines.encoding.latents.preferred", lambda device: asked.append(device) or preferred("cuda")
    )
    with Kernels() as kernels:
        op({"image": images})
    assert asked == ["cpu"]
    assert kernels.first and set(kernels.first) == {int(SDPBackend.CUDNN_ATTENTION)} != {usual[0]}
    assert torch._C._get_sdp_priority_order() == usual


@pytest.mark.parametrize(
    "stage",
    [
        EvaluateTokenizer(EvaluateTokenizerConfig(device="cuda")),
        EvaluateGenerator(EvaluateGeneratorConfig(device="cuda")),
    ],
)
def test_an_evaluation_does_so_throughout(stage, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (9, 0))
    order = torch._C._get_sdp_priority_order
    monkeypatch.setattr(stage, "_evaluate", lambda inputs, out: {"first": order()[0]})
    assert stage.run({}, None) == {"first": int(SDPBackend.CUDNN_ATTENTION)} != {"first": order()[0]}
