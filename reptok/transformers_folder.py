"""Networks of transformers from a folder or the hub: loaded as what it says that they are, or refused.

Nothing is executed that came with the weights: no file of code, no template, no other model that is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from reptok.folder import check_folder, check_sizes, loading, weight_shapes
from reptok.weights import check_finite

LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""How every folder is opened."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's own bars and tables, which would end up among what a command says.

    A table of keys that do not fit shows a stranger's names as they are; what does not fit is refused here.
    """
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def load_network(
    loader: Any,
    folder: Path,
    dtype: torch.dtype,
    *,
    architectures: Sequence[str] = (),
    left_over: tuple[str, ...] = (),
) -> PreTrainedModel:
    """Load a network, frozen and in evaluation mode.

    Args:
        loader: A class of transformers, AutoModel among them.
        folder: Its folder.
        dtype: Of the weights in memory.
        architectures: Classes that the folder may hold; any of transformers' own otherwise.
        left_over: Beginnings of keys that are not wanted, as of the part of a model that is not loaded.

    Raises:
        FileNotFoundError: There is no such folder, or it has no weights as safetensors.
        ValueError: It holds another class, keys are missing or left over, sizes do not fit the files, or
            weights are not finite.
    """
    check_folder(folder)
    with loading(folder), quiet():
        declared = AutoConfig.from_pretrained(folder, **LOCAL)
        _check_class(declared, folder, architectures)
        own = getattr(loader, "config_class", None)
        config = own.from_pretrained(folder, **LOCAL) if own else declared
        with torch.device("meta"):
            build = loader if own else partial(loader.from_config, trust_remote_code=False)
            skeleton: nn.Module = build(config)
        tensors = dict(skeleton.named_parameters()) | dict(skeleton.named_buffers())
        check_sizes(tensors, weight_shapes(sorted(folder.glob("*.safetensors"))), folder)
        model, found = loader.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    extra = [key for key in found["unexpected_keys"] if not key.startswith(left_over)]
    problems = [f"missing {key}" for key in sorted(found["missing_keys"])]
    problems += [f"not expected {key}" for key in sorted(extra)]
    problems += [f"of another shape {key}" for key in sorted(map(str, found["mismatched_keys"]))]
    if problems:
        raise ValueError(f"the weights in {folder} do not fit its config.json: {'; '.join(problems[:8])}")
    check_finite(model.state_dict(), source=str(folder))
    network: PreTrainedModel = model.eval().requires_grad_(False)
    return network


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer; see `load_network`."""
    check_folder(folder)
    with loading(folder), quiet():
        return AutoTokenizer.from_pretrained(folder, **LOCAL)


def check_vocabulary(tokenizer: Any, network: PreTrainedModel, folder: Path) -> None:
    """Refuse a tokenizer that gives numbers for which the network has no row.

    Raises:
        ValueError: Names both.
    """
    with loading(folder):
        rows = network.get_input_embeddings().num_embeddings
        last = max(tokenizer.get_vocab().values(), default=-1)
    if last >= rows:
        raise ValueError(f"the tokenizer in {folder} counts to {last}, but the network has {rows} embeddings")


def _check_class(config: Any, folder: Path, wanted: Sequence[str]) -> None:
    """Check that config.json names one class, which is of the library and of that configuration."""
    names = config.architectures or []
    name = names[0] if len(names) == 1 and isinstance(names[0], str) else ""
    if wanted and name not in wanted:
        raise ValueError(f"{folder} holds a {name or 'network without a class'}, not a {' or '.join(wanted)}")
    declared: Any = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(declared, type) and issubclass(declared, PreTrainedModel)):
        raise ValueError(f"{folder} holds a {name or names!r}, which is no network of transformers")
    if getattr(declared, "config_class", None) is not type(config):
        raise ValueError(f"{folder} holds a {name}, but its model_type is {config.model_type!r}")
