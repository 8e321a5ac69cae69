"""The dependency rules of the tree, read from every import statement (also those inside functions)."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from pipelines import workflows
from pipelines.dag.stage import Stage

REPOSITORY = Path(__file__).resolve().parents[1]
ENGINES = {"ray", "mlflow", "hydra"}
ONLY_IN = {
    "diffusers": (
        "reptok/autoencoder.py",
        "reptok/bench/steps.py",  # its DiT beside our decoder, where it is installed
        "examples/zoo/autoencoder.py",
        "benchmarks/decoder_step.py",
    ),
    "transformers": (
        "reptok/captioner.py",
        "reptok/text_encoder.py",
        "reptok/transformers_folder.py",
        "pipelines/real/encoders.py",  # the publisher's own class, beside ours
        "pipelines/real/clip.py",
        "benchmarks/caption_feed.py",
        "examples/zoo/captioner.py",
        "examples/zoo/captioner_text.py",
        "examples/zoo/emoji_text.py",
        "examples/zoo/english.py",
        "examples/zoo/text_encoder.py",
    ),
    "open_clip": ("reptok/open_clip_models.py", "reptok/metrics/clip_score.py"),
    "timm": ("reptok/encoder/", "examples/zoo/encoder.py"),
    "ray": ("pipelines/", "benchmarks/"),
    "mlflow": ("pipelines/", "benchmarks/"),
    "hydra": ("pipelines/configuration/compose.py",),
    "omegaconf": ("pipelines/configuration/compose.py", "pipelines/configuration/groups.py"),
}
EXAMPLES = re.compile(r"\bexamples[./]|photograph|\bzoo\b|\bdemo\b")
NETWORKS = ("reptok/decoder/", "reptok/encoder/", "reptok/generator/", "reptok/autoencoder.py")


def imports(path):
    """Full dotted names that a file imports, relative imports resolved, `from a import b` as a.b."""
    package = path.relative_to(REPOSITORY).with_suffix("").parts[:-1]
    yield from names(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), package)


def names(nodes, package=()):
    """Full dotted names that some statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from (f"{module}.{alias.name}" for alias in node.names)


FILES = {
    path.relative_to(REPOSITORY).as_posix(): set(imports(path))
    for top in ("reptok", "pipelines", "examples", "benchmarks")
    for path in sorted((REPOSITORY / top).rglob("*.py"))
}


def importers(module):
    """Files that import a module or anything in it."""
    return sorted(
        name for name, found in FILES.items() if any(f"{i}.".startswith(f"{module}.") for i in found)
    )


def names_of_examples(path):
    """Texts of a file, docstrings among them, that name an example."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [text[:60] for text in texts if EXAMPLES.search(text)]


def below(*folders):
    return {name: found for name, found in FILES.items() if name.startswith(folders)}


def test_the_tree_is_read():
    assert "reptok/__init__.py" in FILES and "pipelines.dag.stage.Stage" in FILES["pipelines/dag/graph.py"]


@pytest.mark.parametrize("module", ["pipelines", "examples", "benchmarks", *sorted(ENGINES)])
def test_the_library_does_not_know_the_program(module):
    assert [name for name in importers(module) if name.startswith("reptok/")] == []


def test_the_program_knows_no_example_by_import_or_by_name():
    for module in ("examples", "benchmarks"):
        assert [name for name in importers(module) if name.startswith("pipelines/")] == []
    found = {name: names_of_examples(REPOSITORY / name) for name in below("pipelines/")}
    assert {name: texts for name, texts in found.items() if texts} == {}
    assert names_of_examples(REPOSITORY / "examples/zoo/workflow.py")  # the search itself works


@pytest.mark.parametrize(("module", "places"), ONLY_IN.items(), ids=str)
def test_a_foreign_library_stays_in_its_room(module, places):
    assert [name for name in importers(module) if not name.startswith(places)] == []


def test_the_engine_knows_no_stage():
    """Of the library it takes how strangers' text is shown and where copies lie, which import nothing."""
    for module in ("reptok/terminal.py", "reptok/cache.py"):
        (shown,) = below(module).values()
        assert not {i for i in shown if i.startswith(("reptok", "pipelines"))}
    for name, found in below("pipelines/dag/").items():
        foreign = {
            i for i in found if i.startswith(("pipelines.", "reptok")) and not i.startswith("pipelines.dag.")
        } - {"reptok.terminal.visible", "reptok.cache.cache_root"}
        assert not foreign, f"{name} imports {foreign}"


ROOMS_BELOW_STAGES = ("sources", "urls", "crawl", "captions", "encoding", "training")


def test_rooms_below_the_stages_know_no_stage_and_stages_no_workflow():
    upward = {
        f"pipelines/{room}/": ("pipelines.stages", "pipelines.workflows") for room in ROOMS_BELOW_STAGES
    }
    upward["pipelines/stages/"] = ("pipelines.workflows", "pipelines.run_all")
    for folder, forbidden in upward.items():
        assert below(folder), folder
        for name, found in below(folder).items():
            assert not {i for i in found if f"{i}.".startswith(tuple(f"{f}." for f in forbidden))}, name


def test_the_flow_knows_no_network_and_networks_know_no_flow():
    for name, found in below("reptok/flow/").items():
        assert not {i for i in found if i.startswith("reptok.") and not i.startswith("reptok.flow")}, name
    for name, found in below(*NETWORKS).items():
        if (
            name != "reptok/generator/generator.py"
        ):  # it composes a network with the flow, as tokenizer.py does
            assert not {i for i in found if f"{i}.".startswith("reptok.flow.")}, name


def loaded(modules):
    """The modules of the tree that are imported with these, at the top of their files."""
    seen, waiting = set(), list(modules)
    while waiting:
        name = waiting.pop()
        path = REPOSITORY / f"{name.replace('.', '/')}.py"
        if path.exists() and name not in seen:
            seen.add(name)
            for found in names(ast.parse(path.read_text(encoding="utf-8")).body):
                waiting += [found, found.rpartition(".")[0]]
    return seen


def test_a_stage_names_what_it_imports_when_it_runs():
    def kinds(base):
        return {kind for child in base.__subclasses__() for kind in (child, *kinds(child))}

    stages = [kind for kind in kinds(Stage) if kind.__module__.startswith("pipelines.stages.")]
    assert workflows.TrainTokenizer in stages
    for stage in stages:
        late = set(names(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(stage))))))
        before = loaded(stage.modules)
        assert not {i for i in late if not {i, i.rpartition(".")[0]} & before}, stage.name


def test_no_drawer_for_odds_and_ends():
    odd = {"utils.py", "helpers.py", "common.py", "util.py", "misc.py"}
    assert [name for name in FILES if name.rsplit("/", 1)[-1] in odd] == []
