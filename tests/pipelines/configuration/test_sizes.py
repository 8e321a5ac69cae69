"""The sizes in `conf/` are those that the library counts and measures."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from reptok.decoder.sizes import SIZES
from reptok.flops import mixer_config, sit_config

CONF = Path(__file__).resolve().parents[3] / "conf"


def values(group: str, name: str) -> dict:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text())


def test_the_decoders_of_the_configuration_are_those_of_the_library():
    assert {path.stem for path in (CONF / "decoder").glob("*.yaml")} == SIZES.keys() | {"tiny"}


@pytest.mark.parametrize("name", SIZES)
def test_a_decoder_has_the_size_of_its_name(name):
    given = values("decoder", name)
    assert given and {key: getattr(SIZES[name], key) for key in given} == given


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("mixer_class", mixer_config(4)),
        ("mixer_class_276m", mixer_config(3)),
        ("sit_class", sit_config(1152, 28)),
    ],
)
def test_a_generator_has_the_size_that_the_table_of_costs_counts(name, counted):
    given = values("generator", name)
    assert given.keys() <= {field.name for field in fields(counted)}
    assert {key: getattr(counted, key) for key in given} == given
