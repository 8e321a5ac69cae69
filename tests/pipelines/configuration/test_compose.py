"""Hydra composes, the dataclasses judge: what is unknown or wrong is named, with the nearest valid key."""

import random
from dataclasses import dataclass, field
from typing import Literal

import pytest

from pipelines.configuration.compose import ConfigError, load_config, valid_keys


@dataclass(frozen=True, kw_only=True)
class Decoder:
    depth: int = 4
    width: int = 128
    scale: float = 1.0

    def __post_init__(self):
        if self.depth <= 0:
            raise ValueError(f"depth must be positive, not {self.depth}")


@dataclass(frozen=True, kw_only=True)
class Caption:
    weight: float
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Root:
    experiment: str
    root: str
    decoder: Decoder = field(default_factory=Decoder)
    warmup_steps: int = 10
    kind: Literal["mixer", "transformer"] = "mixer"
    interval: tuple[float, float] = (0.3, 0.9)
    hosts: tuple[str, ...] = ()
    until: str | None = None
    limit: int | None = None
    captions: dict[str, Caption] = field(default_factory=dict)
    tracked: bool = True


@pytest.fixture
def conf(tmp_path):
    files = {
        "config.yaml": "defaults:\n  - _self_\n  - decoder: S\n  - experiment: demo\nroot: runs\n",
        "decoder/S.yaml": "depth: 4\nwidth: 128\n",
        "decoder/XL.yaml": "depth: 28\nwidth: 1152\n",
        "experiment/demo.yaml": "# @package _global_\nwarmup_steps: 5\n",
        "experiment/paper.yaml": "# @package _global_\ndefaults:\n  - override /decoder: XL\n",
    }
    for name, text in files.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


def test_groups_experiments_and_the_command_line_come_together(conf):
    config = load_config(Root, ["decoder.depth=6"], conf)
    assert config == Root(experiment="demo", root="runs", decoder=Decoder(depth=6), warmup_steps=5)
    paper = load_config(Root, ["experiment=paper", "decoder.scale=2"], conf)
    assert paper.decoder == Decoder(depth=28, width=1152, scale=2.0) and paper.experiment == "paper"
    assert load_config(Root, ["decoder=XL"], conf).decoder.depth == 28


def test_values_get_the_types_of_their_fields(conf):
    overrides = ["interval=[0,1]", "hosts=[a,b]", "until=null", "limit=1e3", "captions.alt.weight=1"]
    config = load_config(Root, overrides, conf)
    assert config.interval == (0.0, 1.0) and isinstance(config.interval[0], float)
    assert config.hosts == ("a", "b") and config.until is None
    assert config.limit == 1000 and isinstance(config.limit, int)
    assert config.captions == {"alt": Caption(weight=1.0)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("decoder.dept=8", "unknown key decoder.dept; did you mean decoder.depth?"),
        ("warmup_step=8", "unknown key warmup_step; did you mean warmup_steps?"),
        ("depth=8", "unknown key depth; did you mean decoder.depth?"),
        ("encoder.depth=8", "unknown key encoder; did you mean decoder?"),
        ("captions.alt.wieght=1", "unknown key captions.alt.wieght; did you mean"),
        ("experiment=demmo", "there is no experiment 'demmo'; did you mean demo? There are: demo, paper"),
        ("decoder=M", "there is no decoder 'M'; There are: S, XL"),
        ("decoder.depth=deep", "decoder.depth must be a whole number, not 'deep'"),
        ("decoder.depth=2.5", "decoder.depth must be a whole number, not 2.5"),
        ("tracked=1", "tracked must be true or false, not 1"),
        ("decoder.width=true", "decoder.width must be a whole number, not True"),
        ("kind=mixre", "kind is one of mixer, transformer, not 'mixre'"),
        ("interval=[0.5]", "interval takes 2 values, not 1"),
        ("decoder.depth=0", "decoder: depth must be positive, not 0"),
        ("captions.alt={}", "captions.alt.weight has no value"),
        ("root=null", "root must be a text, not None"),
        ("until", "'until' is not of the form key=value"),
        ("hosts=[a", "hosts=[a: no viable alternative"),
    ],
)
def test_what_is_wrong_is_named(conf, override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(Root, [override], conf)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_named_too(conf):
    (conf / "decoder" / "S.yaml").write_text("depth: 4\nhight: 2\nwidht: 3\n")
    with pytest.raises(ConfigError, match=r"unknown key decoder\.hight"):
        load_config(Root, [], conf)


def test_a_missing_value_is_named(conf):
    (conf / "config.yaml").write_text("defaults:\n  - experiment: demo\n")
    with pytest.raises(ConfigError, match="root has no value; give one with root"):
        load_config(Root, [], conf)
    (conf / "config.yaml").write_text("defaults:\n  - experiment: demo\nroot: ???\n")
    with pytest.raises(ConfigError, match="root"):
        load_config(Root, [], conf)


def test_every_key_is_known():
    assert {"decoder", "decoder.depth", "interval", "until"} <= set(valid_keys(Root))


AWKWARD = [
    "runs/größe", "実行", "a,b", "a'b", 'a"b', "it's \"so\"", "a[b]", "a{b}", "a(b)", "run~1", "~x",
    "a&b", "a b", "a=b",
    "x=[1,2]", "a:b", "a: b", "#a", "a#b", "a%41", "a\\b", "a\\", "\\'", "'", "a;b|c>d<e", "$HOME",
    "a$b", "a*b?", "!a",
    "@a", "5", "1e3", "true", "-", " a ", "a\tb", "a\nb", "null/", "`id`", "{a: 1}", "choice(a,b)",
    "file:///a b",
    "s3://bucket/a b", "", "'a", "a'", "\\\\'\\",
]  # fmt: skip


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("key", ["root", "until", "captions.alt.kind"])
def test_a_text_is_taken_as_it_stands(conf, key, text):
    weight = ["captions.alt.weight=1"] if "." in key else []
    config = load_config(Root, [*weight, f"{key}={text}"], conf)
    assert {"root": config.root, "until": config.until}.get(
        key, config.captions["alt"].kind if weight else None
    ) == text


def test_texts_of_any_characters_are_taken_as_they_stand(conf):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    letters = "ab'\"\\,[]{}()=:~&#%$ @!*?;|<>\t\né漢"
    texts = ["".join(draw.choices(letters, k=draw.randint(1, 12))) for _ in range(150)]
    # A text in quotes is unquoted, and ${...} is a reference: both are Hydra's, and documented.
    texts = [t for t in texts if "${" not in t and not (len(t) > 1 and t[0] in "'\"" and t[0] == t[-1])]
    overrides = [f"captions.k{n}.kind={text}" for n, text in enumerate(texts)]
    weights = [f"captions.k{n}.weight=1" for n in range(len(texts))]
    config = load_config(Root, [*weights, *overrides], conf)
    assert [config.captions[f"k{n}"].kind for n in range(len(texts))] == texts


def test_what_hydra_quotes_and_refers_to_still_works(conf):
    assert load_config(Root, ["root='a b'"], conf).root == "a b"
    assert load_config(Root, ['root="a, b"'], conf).root == "a, b"
    assert load_config(Root, ["until=${root}"], conf).until == "runs"
    assert load_config(Root, ["until=null"], conf).until is None


def test_a_reference_to_nothing_is_refused_with_a_sentence(conf):
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(Root, ["root=${nowhere}"], conf)
