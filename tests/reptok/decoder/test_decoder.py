import pytest
import torch

from reptok.configs import DecoderConfig
from reptok.decoder.patching import patchify, unpatchify
from reptok.decoder.rope import axial_angles, axial_frequencies, grid_positions, rotate
from reptok.decoder.sizes import SIZES, decoder_size
from reptok.decoder.transformer import Decoder

TINY = DecoderConfig(width=32, depth=2, heads=2, patch_size=2, latent_size=4, token_dim=16, mapping_width=16)


def awake(config=TINY):
    """A decoder whose zero-initialised weights are not zero."""
    torch.manual_seed(0)
    decoder = Decoder(config)
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return decoder


def test_patches_hold_row_column_channel_in_this_order():
    latent = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    first = patchify(latent, 2)[0, 0]
    assert first.tolist() == [0, 16, 1, 17, 4, 20, 5, 21]


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_unpatchify_is_the_inverse(patch_size):
    latent = torch.randn(2, 4, 8, 4)
    patches = patchify(latent, patch_size)
    assert torch.equal(unpatchify(patches, patch_size, (8 // patch_size, 4 // patch_size)), latent)
    with pytest.raises(ValueError, match="does not divide"):
        patchify(latent, 3)


def test_positions_are_cell_centres_and_the_shorter_side_shrinks():
    expected = [[-0.75, -0.25], [-0.75, 0.25], [-0.25, -0.25]]
    torch.testing.assert_close(grid_positions(4, 2)[:3], torch.tensor(expected))
    assert grid_positions(1, 1).tolist() == [[0.0, 0.0]]


def test_frequencies_run_geometrically_over_heads_first():
    f = axial_frequencies(32, 3)
    flat = f[0].T.reshape(-1)
    torch.testing.assert_close(flat[0], torch.tensor(torch.pi))
    torch.testing.assert_close(flat[1:] / flat[:-1], torch.full((11,), 10 ** (1 / 12)))
    assert torch.equal(f[0], f[1])
    with pytest.raises(ValueError, match="multiple of 8"):
        axial_frequencies(12, 2)


def test_rotated_products_depend_on_relative_positions_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 32).double(), torch.randn(2, 1, 2, 32).double()
    frequencies = axial_frequencies(32, 2).double()

    def product(offset):
        positions = torch.tensor([[0.1, -0.3], [0.4, 0.2]]).double() + offset
        angles = axial_angles(positions, frequencies)[:, None]
        turned = [rotate(x, angles.cos(), angles.sin()) for x in (q, k)]
        return (turned[0][0] * turned[1][1]).sum(-1)

    torch.testing.assert_close(product(0.0), product(0.7))
    assert not torch.allclose(product(0.0), (q[0] * k[1]).sum(-1))


def test_a_fresh_decoder_predicts_zero():
    out = Decoder(TINY)(torch.randn(2, 4, 4, 4), torch.rand(2), torch.randn(2, 1, 32))
    assert out.shape == (2, 4, 4, 4) and not out.any()


def test_time_and_token_reach_every_patch():
    decoder, x = awake(), torch.randn(1, 4, 4, 4)
    t, token = torch.tensor([0.3]), torch.randn(1, 1, 32)
    base = decoder(x, t, token)
    assert (decoder(x, t + 0.2, token) - base).abs().flatten(2).amax(-1).min() > 0
    assert (decoder(x, t, token + 1) - base).abs().flatten(2).amax(-1).min() > 0


def test_any_latent_size_and_several_tokens():
    decoder = awake(DecoderConfig(width=32, depth=1, heads=2, patch_size=1, latent_size=4, token_dim=16))
    assert decoder(torch.randn(2, 4, 6, 3), torch.rand(2), torch.randn(2, 3, 32)).shape == (2, 4, 6, 3)


def test_a_sample_does_not_depend_on_its_batch():
    decoder, x, t, token = awake(), torch.randn(5, 4, 4, 4), torch.rand(5), torch.randn(5, 1, 32)
    alone = decoder(x[3:4], t[3:4], token[3:4])
    torch.testing.assert_close(decoder(x, t, token)[3:4], alone, atol=1e-5, rtol=0)


def test_every_parameter_receives_gradient():
    decoder = awake()
    decoder(torch.randn(2, 4, 4, 4), torch.rand(2), torch.randn(2, 1, 32)).square().sum().backward()
    assert [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_named_sizes():
    with torch.device("meta"):
        assert sum(p.numel() for p in Decoder(SIZES["XL"]).parameters()) == 570_418_752
    assert decoder_size("B", token_dim=384, patch_size=4, latent_size=64).patch_size == 4
    with pytest.raises(ValueError, match="unknown decoder size"):
        decoder_size("XXL", token_dim=768)
    with pytest.raises(ValueError, match="at least the token's width"):
        decoder_size("S", token_dim=768)
    with pytest.raises(ValueError, match="multiple of 8"):
        DecoderConfig(width=36, heads=3)
