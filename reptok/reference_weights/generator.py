"""The authors' generator in this project's names: a class-conditional or class-free mixer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from reptok.configs import GeneratorConfig
from reptok.generator.generator import TokenGenerator
from reptok.reference_weights.shapes import count, size
from reptok.weights import check_keys

MIXER_PREFIXES = ("ema_model.net.", "model.net.", "net.")


def import_generator(state_dict: Mapping[str, Tensor]) -> TokenGenerator:
    """Build the mixer that a state dict of the authors' generator holds, sizes inferred from its shapes.

    Accepts bare keys, keys under ``ema_model.net.`` or ``model.net.`` (of both the averaged ones win; other
    keys are then ignored), and the ``_orig_mod`` of a compiled model.

    Raises:
        ValueError: Names every key that is missing, left over or of a wrong shape.
    """
    state = _mixer_state(state_dict)
    pattern = r"mixer\.(\d+)\."
    depth = count(state, pattern) - 3  # linear in, blocks, norm, linear out
    if depth < 1:
        raise ValueError("the state dict holds no mixer.* blocks of the authors' generator")
    num_tokens, token_dim = size(state, "pos_embed", 1), size(state, "pos_embed", 2)
    hidden, length = (size(state, "mixer.1.0.fn.0.weight", axis) for axis in (0, 1))
    table = "label_embedder.embedding_table.weight"
    has_class = table in state
    config = GeneratorConfig(
        kind="mixer",
        token_dim=token_dim,
        num_tokens=num_tokens,
        condition="class" if has_class else "none",
        num_classes=size(state, table, 0) - 1 if has_class else 0,
        num_extra_tokens=length - num_tokens - 1 - has_class,
        dim=size(state, "mixer.0.weight", 0),
        depth=depth,
        tokens_mlp_dim=hidden,
        channels_mlp_dim=size(state, "mixer.1.1.fn.0.weight", 0),
    )
    model = TokenGenerator(config)
    names = _mixer_names(depth, has_class)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    expected = {theirs: shapes[ours] for ours, theirs in names.items()}
    for name in expected:
        if name.endswith(("0.fn.0.weight", "0.fn.3.weight")):
            expected[name] = (*expected[name], 1)  # a convolution of width 1 there, a linear map here
    expected["pos_embed"] = (1, num_tokens, token_dim)
    check_keys(expected, state, source="the authors' generator checkpoint")
    copied = {ours: state[theirs].float().reshape(shapes[ours]) for ours, theirs in names.items()}
    model.load_state_dict(copied, strict=False)
    return model


def _mixer_state(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in MIXER_PREFIXES:
        if any(k.startswith(prefix) for k in state_dict):
            state_dict = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
            break
    return {k.replace("._orig_mod", "").removeprefix("_orig_mod."): v for k, v in state_dict.items()}


def _mixer_names(depth: int, has_class: bool) -> dict[str, str]:
    names = {
        "position": "pos_embed",
        "time.mlp.0.weight": "t_embedder.mlp.0.weight",
        "time.mlp.0.bias": "t_embedder.mlp.0.bias",
        "time.mlp.2.weight": "t_embedder.mlp.2.weight",
        "time.mlp.2.bias": "t_embedder.mlp.2.bias",
    }
    if has_class:
        names["classes.table.weight"] = "label_embedder.embedding_table.weight"
    pairs = [("linear_in", "0"), ("norm", str(depth + 1)), ("linear_out", str(depth + 2))]
    for i in range(depth):
        pairs += [
            (f"blocks.{i}.token_norm", f"{i + 1}.0.norm"),
            (f"blocks.{i}.token_mlp.up", f"{i + 1}.0.fn.0"),
            (f"blocks.{i}.token_mlp.down", f"{i + 1}.0.fn.3"),
            (f"blocks.{i}.channel_norm", f"{i + 1}.1.norm"),
            (f"blocks.{i}.channel_mlp.0", f"{i + 1}.1.fn.0"),
            (f"blocks.{i}.channel_mlp.2", f"{i + 1}.1.fn.3"),
        ]
    for ours, theirs in pairs:
        for kind in ("weight", "bias"):
            names[f"network.{ours}.{kind}"] = f"mixer.{theirs}.{kind}"
    return names
