"""Every number of the configuration has its bounds, and one outside of them is refused by name."""

import dataclasses
import types
import typing
from typing import Annotated, Union

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt

from pipelines.configuration.compose import ConfigError, load_config
from pipelines.configuration.schema import Config

BOUNDS = (Ge, Gt, Interval, Le, Lt)


def numbers(schema, prefix=""):
    """Every number in a schema: its dotted key, and whether its type states bounds."""

    def visit(hint, key, bounded):
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            yield from visit(arguments[0], key, any(isinstance(a, BOUNDS) for a in arguments[1:]))
        elif origin in (Union, types.UnionType, tuple, dict):
            for argument in arguments:
                yield from visit(argument, key, bounded)
        elif dataclasses.is_dataclass(hint):
            yield from numbers(hint, f"{key}.")
        elif hint in (int, float):
            yield key, bounded

    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        yield from visit(hints[field.name], f"{prefix}{field.name}", False)


def test_every_number_states_its_bounds():
    """A new number gets a type of `reptok/bounds.py`, or Annotated bounds of its own."""
    found = dict(numbers(Config))
    for key, schema in Config.extra_schemas().items():
        found |= dict(numbers(schema, f"{key}."))
    assert len(found) > 250
    assert [key for key, bounded in found.items() if not bounded] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.tokenizer.steps=0", "train.tokenizer.steps must be at least 1, not 0"),
        ("train.generator.optim.lr=0", "train.generator.optim.lr must be above 0, not 0.0"),
        ("train.generator.optim.lr=inf", "train.generator.optim.lr must be a finite number"),
        ("train.tokenizer.ema_decay=1", "train.tokenizer.ema_decay must be below 1, not 1.0"),
        ("train.preservation_weight=-0.1", "train.preservation_weight must be at least 0, not -0.1"),
        ("vae.scale=0", "vae.scale must be above 0"),
        ("decoder.depth=-3", "decoder.depth must be at least 1, not -3"),
        ("data.download.fetch.retries=-1", "data.download.fetch.retries must be at least 0"),
        ("data.download.resize.quality=101", "data.download.resize.quality must be at most 100, not 101"),
        ("data.select_urls.filters.max_watermark_score=1.5", "max_watermark_score must be at most 1"),
        ("data.select_urls.filters.min_clip_similarity_vitb32=2", "must be at most 1"),
        ("encode.workers.workers=-1", "encode.workers.workers must be at least 0"),
        ("evaluate.generator.guidance_interval=[0.3,1.5]", "guidance_interval[1] must be at most 1, not 1.5"),
        ("evaluate.generator.guidance_interval=[0.9,0.3]", "guidance_interval must rise"),
        ("evaluate.generator.guidance=[1,-2]", "guidance[1] must be at least 0"),
        ("cluster.num_cpus=0", "cluster.num_cpus must be above 0"),
        ("captioner.val_mix=1.1", "captioner.val_mix must be at most 1"),
    ],
)
def test_a_number_outside_of_its_bounds_is_refused_by_name(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(Config, [override])
    assert message in str(caught.value)


def test_bounds_of_a_pair_must_leave_something():
    overrides = [f"data.select_urls.filters.{bound}" for bound in ("min_width=300", "max_width=200")]
    with pytest.raises(ConfigError, match="min_width 300 is above max_width 200"):
        load_config(Config, overrides)


def test_bounds_are_inclusive_where_they_say_so():
    config = load_config(
        Config, ["train.generator.optim.beta1=0", "captioner.mix=1", "encode.workers.gpus=0"]
    )
    assert config.train.generator.optim.beta1 == 0 and config.captioner.mix == 1
