"""The imported tokenizer gives the authors' numbers; their time is 1 - t, their velocity the negative."""

import pytest
import torch

from reptok.decoder.blocks import CosineAttention, RMSNorm, SwiGLU
from reptok.decoder.rope import axial_angles, axial_frequencies, grid_positions, rotate
from reptok.encoder.preprocess import Preprocess, resize_square
from reptok.flow.path import PATHS
from reptok.flow.time import sample_logit_normal
from reptok.reference_weights import import_tokenizer

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [8, 16, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
CASES = {"mono_w144_h2_d2_c32": (4,), "mono_w96_h3_d2_c8_dino224": (1, 3)}
GRADIENTS = {
    "encoder.embedding": "encoder.dino.model.cls_token",
    "projection.offset": "encoder.dino.temp_pos_embed",
    "projection.linear.weight": "encoder.dino.backbone.fc.weight",
    "projection.norm.weight": "encoder.dino.backbone.ln.weight",
    "decoder.patch_in.weight": "backbone.mid_merge.pre_proj.proj.weight",
    "decoder.sequence_in.weight": "backbone.mid_merge.proj.weight",
    "decoder.out_norm.scale": "backbone.mid_split.post_proj.norm.scale",
    "decoder.time.project.weight": "time_in_proj.weight",
    "decoder.time.blocks.0.ff.up.weight": "mapping.blocks.0.up_proj.weight",
    "decoder.blocks.0.attention.qkv.weight": "backbone.mid_level.0.self_attn.qkv_proj.weight",
    "decoder.blocks.0.attention.scale": "backbone.mid_level.0.self_attn.scale",
    "decoder.blocks.0.attention_norm.linear.weight": "backbone.mid_level.0.self_attn.norm.linear.weight",
}


def close(ours, theirs, absolute=1e-5):
    torch.testing.assert_close(ours.detach(), theirs, atol=absolute, rtol=0)


@pytest.fixture(scope="module", params=CASES)
def case(request, parity):
    data, settings = parity(f"{request.param}.safetensors"), parity(f"{request.param}.json")
    state = {k.removeprefix("sd."): v for k, v in data.items() if k.startswith("sd.")}
    tokenizer = import_tokenizer(
        state,
        encoder_heads=settings["dino"]["heads"],
        encoder_image_size=settings["dino"]["model_size"],
        vae_config=VAE,
        latent_size=settings["latent"][-1],
    )
    return tokenizer, data, CASES[request.param]


def test_token_and_projection(case):
    tokenizer, data, _ = case
    token = tokenizer.tokenize(data["in.image"])
    close(token, data["out.cls_token"])
    close(tokenizer.projection(token[:, None]), data["out.x_extra"])


def test_every_block_and_the_velocity(case):
    tokenizer, data, _ = case
    decoder, outputs = tokenizer.decoder, {}
    for i, block in enumerate(decoder.blocks):
        block.ff_norm.register_forward_hook(
            lambda _, inputs, __, i=i: outputs.update({f"block{i}_attn_out": inputs[0]})
        )
        block.register_forward_hook(lambda _, __, y, i=i: outputs.update({f"block{i}_out": y}))
    decoder.time.register_forward_hook(lambda _, __, y: outputs.update(cond_norm=y))
    t = 1 - data["in.t"]
    velocity = tokenizer.velocity(data["in.z_t"], t, data["out.cls_token"])
    close(-velocity, data["out.velocity"])
    assert len(outputs) == 5
    for name, output in outputs.items():
        close(output, data[f"out.{name}"])


def test_euler_samples(case):
    tokenizer, data, steps = case
    for n in steps:
        token, noise = data["out.cls_token"], data["in.noise"]
        latent = tokenizer.detokenize_latent(token, noise=noise, num_steps=n)
        close(latent, data[f"out.euler{n}_latent"])
        close(tokenizer.detokenize(token, noise=noise, num_steps=n), data[f"out.euler{n}_image"])


def test_losses_and_gradients(case):
    tokenizer, data, _ = case
    if "train.t" not in data:
        pytest.skip("this fixture has no training forward")
    images = data["in.image"]
    latent = tokenizer.autoencoder.encode(images, noise=data["train.vae_posterior_noise"])
    close(latent, data["train.latent"])
    losses = tokenizer.losses(
        images, latents=data["train.latent"], noise=data["train.noise_z1"], t=1 - data["train.t"]
    )
    torch.testing.assert_close(losses.velocity, data["train.loss_rf"], rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.preservation, data["train.loss_cos"], rtol=1e-4, atol=0)
    tokenizer.zero_grad()
    (losses.velocity.mean() + 0.1 * losses.preservation.mean()).backward()
    for ours, theirs in GRADIENTS.items():
        gradient, wanted = tokenizer.get_parameter(ours).grad, data[f"grad.{theirs}"]
        error = (gradient - wanted.reshape(gradient.shape)).norm() / wanted.norm()
        assert error < 1e-4, f"{ours}: relative error {error}"
    wanted = data["grad.backbone.mid_split.post_proj.proj.weight"]
    assert (tokenizer.decoder.patch_out.weight.grad + wanted).norm() / wanted.norm() < 1e-4
    assert not data["grad.encoder.dino.new_reg"].any()  # what we leave out is dead weight


def test_preprocessing(parity):
    data = parity("preprocess.safetensors")
    for case in parity("preprocess.json")["cases"]:
        name, size = f"case{case['i']}", case["size"]
        resized, normal = resize_square(data[f"{name}.in"], size), Preprocess(size)(data[f"{name}.in"])
        if f"{name}.out_resize" in data:
            close(resized, data[f"{name}.out_resize"], 1e-6)
            close(normal, data[f"{name}.out_norm"], 1e-6)
        else:
            rows = [0, 100, 223]
            close(resized[:, :, rows], data[f"{name}.out_resize_rows0_100_223"], 1e-6)
            close(normal[:, :, rows], data[f"{name}.out_norm_rows0_100_223"], 1e-6)


def test_primitives(parity):
    data = parity("primitives.safetensors")
    for head, heads in ((32, 4), (64, 12), (72, 16), (72, 2)):
        theirs = data[f"freqs_dh{head}_nh{heads}"]
        torch.testing.assert_close(axial_frequencies(head, heads), theirs, rtol=1e-6, atol=0)
        pixels = axial_frequencies(head, heads, low=1e-4, high=1.0)
        torch.testing.assert_close(pixels, data[f"freqs_abs_dh{head}_nh{heads}"], rtol=1e-5, atol=0)
    for rows, columns in ((12, 8), (1, 1), (32, 32), (4, 4), (8, 12)):
        close(grid_positions(rows, columns), data[f"pos_{rows}x{columns}"], 1e-6)
    norm = RMSNorm(10)
    norm.scale.data.copy_(data["rms.scale"])
    close(norm(data["rms.x"]), data["rms.out"], 1e-6)
    theta = data["rope.theta"]
    close(rotate(data["qk.q"], theta.cos(), theta.sin()), data["rope.q_out"], 1e-5)
    positions, frequencies = data["rope.pos"][0], axial_frequencies(72, 4)
    close(axial_angles(positions, frequencies).transpose(0, 1), theta[0], 1e-5)


def test_attention_and_feed_forward_primitives(parity, monkeypatch):
    """The attention's own queries and keys, before they are rotated, and the gated product."""
    data, seen = parity("primitives.safetensors"), {}
    q, k = (data[f"qk.{name}"].transpose(1, 2).flatten(2) for name in "qk")  # (B, N, H * d_head)
    attention = CosineAttention(q.shape[-1], len(data["qk.scale"]))
    attention.scale.data.copy_(data["qk.scale"])
    attention.qkv.forward = lambda _: torch.cat([q, k, k], dim=-1)

    def look(q, k, v, **_):
        seen.update(q=q, k=k)
        return v

    monkeypatch.setattr("reptok.decoder.blocks.F.scaled_dot_product_attention", look)
    still = torch.zeros(1, 1, len(data["qk.scale"]), data["qk.q"].shape[-1] // 4)
    attention(torch.zeros_like(q), still.cos(), still.sin())
    for name in "qk":
        close(seen[name], data[f"qk.{name}_out"])
    weight = data["swiglu.w"]
    ff = SwiGLU(weight.shape[1], weight.shape[0] // 2)
    ff.up.weight.data.copy_(weight)
    ff.down = torch.nn.Identity()
    close(ff(data["rms.x"]), data["swiglu.out"])


@pytest.mark.parametrize(("ours", "name"), [("linear", "linear"), ("trigonometric", "gvp")])
def test_paths_and_their_conversions(parity, ours, name):
    data, path = parity("schedules.safetensors"), PATHS[ours]
    x, v, t = data["in.x"], data["in.v"], data["in.t"]
    schedule = path.schedule(t)
    for found, theirs in (
        (schedule.alpha, "alpha"),
        (schedule.sigma, "sigma"),
        (schedule.d_alpha, "dalpha"),
        (schedule.d_sigma, "dsigma"),
        (path.noise_from_velocity(x, v, t), "noise"),
        (path.score_from_velocity(x, v, t), "score"),
        (path.velocity_from_score(x, data[f"{name}.score"], t), "velocity_from_score"),
    ):
        close(found, data[f"{name}.{theirs}"])


def test_logit_normal_times(parity):
    data = parity("schedules.safetensors")
    torch.manual_seed(41)
    close(sample_logit_normal(6), data["logitnormal_seed41_n6"], 1e-6)
    torch.manual_seed(41)
    close(sample_logit_normal(6, loc=0.5, scale=2.0), data["logitnormal_seed41_loc.5_scale2_n6"], 1e-6)
