"""The kernels of attention: which comes first, and that ours may all use it.

There is no GPU here: the networks are traced with fake tensors on a CUDA device, under bfloat16 autocast as a
training runs them, and what reaches attention is looked at.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from reptok import flops
from reptok.attention import chosen, obstacle, preference
from reptok.configs import EncoderConfig, GeneratorConfig
from reptok.decoder.sizes import SIZES
from reptok.decoder.transformer import Decoder
from reptok.encoder.ssl import SSLEncoder
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator

ENCODER = EncoderConfig(name="random_vitb14_reg")
ARCHITECTURE = flops.encoder_architecture(ENCODER)


class Attentions(TorchFunctionMode):
    """Notes the operands of every attention."""

    def __init__(self):
        super().__init__()
        self.operands = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is scaled_dot_product_attention:
            self.operands.append((*arguments[:3], (keywords or {}).get("attn_mask")))
        return function(*arguments, **(keywords or {}))


@pytest.fixture
def on_cuda(monkeypatch):
    """Fake tensors "on a GPU", under autocast, which asks whether there is one."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)
    with torch.device("meta"):
        vit = ARCHITECTURE.build()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        yield vit


def seen(run):
    with Attentions() as noted, torch.autocast("cuda", torch.bfloat16):
        run()
    return noted.operands


def test_the_decoder_at_the_papers_size(on_cuda):
    config = SIZES["XL"]
    decoder = Decoder(config)
    latent, token = torch.randn(2, 4, 32, 32), torch.randn(2, 1, config.width)
    operands = seen(lambda: decoder(latent, torch.rand(2), token))
    assert len(operands) == config.depth
    for query, key, value, mask in operands:
        assert tuple(query.shape) == (2, 16, 257, 72) and query.device.type == "cuda"
        assert obstacle(query, key, value) is None and mask is None


def test_the_encoder_at_the_papers_size(on_cuda):
    encoder = SSLEncoder(ENCODER, on_cuda.to_empty(device="cuda"), ARCHITECTURE)
    operands = seen(lambda: encoder(torch.rand(2, 3, 256, 256)))
    assert len(operands) == 12
    assert [obstacle(*three) for *three, mask in operands] == [None] * 12


def test_a_text_is_masked_and_its_length_is_even_for_the_kernel(on_cuda):
    config = GeneratorConfig(condition="text", text_dim=768, heads=20, depth=2)
    generator = TokenGenerator(config)
    text = Condition(text=torch.randn(2, 32, 768), mask=torch.ones(2, 32, dtype=torch.bool))
    tokens = torch.randn(2, config.num_tokens, config.token_dim)
    operands = seen(lambda: generator.velocity(tokens, torch.rand(2), text))
    assert len(operands) == 2
    for query, key, value, mask in operands:
        assert obstacle(query, key, value) is None
        assert mask is not None and mask.shape[-1] % 8 == 0


def test_what_stands_in_the_way_is_named():
    def heads(width, dtype=torch.bfloat16):
        return torch.zeros(1, 2, 5, width, dtype=dtype)

    assert obstacle(heads(72), heads(72), heads(72)) is None
    assert "float32" in obstacle(heads(72, torch.float32), heads(72), heads(72))
    assert "65 wide" in obstacle(heads(65), heads(65), heads(65))
    strided = torch.zeros(1, 2, 72, 5, dtype=torch.bfloat16).transpose(2, 3)
    assert "next to each other" in obstacle(heads(72), strided, heads(72))


def test_cudnn_comes_first_on_hopper_and_flash_before():
    assert preference(9)[:2] == [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    assert preference(10)[0] == SDPBackend.CUDNN_ATTENTION
    assert preference(8)[0] == SDPBackend.FLASH_ATTENTION
    assert SDPBackend.CUDNN_ATTENTION not in preference(8)


def test_the_choice_on_this_cpu_is_told():
    operands = [torch.zeros(1, 2, 5, 8) for _ in range(3)]
    assert chosen(*operands) == "FlashAttention"  # torch has one for the CPU
