"""Every command of the documentation exists: its target, its module, its options, its settings."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image

from pipelines import sweep
from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from pipelines.real import settings as real
from reptok.cli import app

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *(page.relative_to(REPOSITORY).as_posix() for page in REPOSITORY.glob("docs/*.md"))]
HEADERS = [path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("**/conf/experiment/*.yaml")]
COMMAND = re.compile(
    r"(?<![\w./-])(?<!-n )(?:\.venv/bin/)?"
    r"(?P<program>make(?= [a-z])|reptok(?= [a-z])|python(?= ))(?P<rest>[^\n`]*)"
)
OWN_OPTIONS = ("format=", "verify=", "rows=", "part=", "opt_out=", "delete=")


def commands(text):
    """(program, words) of every command in code: fenced blocks, inline code, and the headers of recipes."""
    code = re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
    code += re.findall(r"^# (?:command  |          ) (.*)$", text, re.M)
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        for found in COMMAND.finditer(line.split("#", 1)[0] if not line.startswith("#") else line):
            rest = re.split(r"\s[&|;]+\s|,(?=\s|$)|\s+\(|\s{2,}|[&;]{1,2}", found["rest"])[0]
            try:
                yield found["program"], shlex.split(rest)
            except ValueError as error:  # a quotation that the line does not close
                raise AssertionError(f"{line!r} is no command: {error}") from error


def found_in(pages):
    """Every command of some pages, each once."""
    found = {
        (program, *words): page
        for page in pages
        for program, words in commands((REPOSITORY / page).read_text(encoding="utf-8"))
    }
    return [
        pytest.param(program, words, id=f"{page}: {program} {' '.join(words)}"[:110])
        for (program, *words), page in found.items()
    ]


def overrides(words, pictures):
    """The settings among the words; a folder that is the reader's own becomes one with pictures."""
    given = [w for w in words if re.match(r"[a-z][\w.]*=", w) and not w.startswith(OWN_OPTIONS)]
    given = [re.sub(r"(folder=)(/data/|~|\$HOME|\.\.\.).*", rf"\1{pictures}", word) for word in given]
    return [word for word in given if "..." not in word]


def compose(words, pictures):
    """Refuses a setting or a group that does not exist."""
    load_config(Config, overrides(words, pictures))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with two classes of pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (80, 80), (30 * number, 9, 9)).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def check_make(words, pictures):
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    assert words[0] in targets, f"make has no target {words[0]}"
    given = next((word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")), "")
    if words[0] in ("demo", "plan", "submit", "dry-run"):
        compose(shlex.split(given), pictures)
    if words[0] == "real":
        real.parse(shlex.split(given))


def check_python(words, pictures):
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"there is no module {words[1]}"
        if words[1:3] == ["pipelines", "sweep"]:
            grids, of_recipes = sweep.parse(words[3:])
            for grid in grids if of_recipes is None else ():  # every recipe is composed by a test of its own
                for point in grid.points():
                    compose([*grid.rest, *(f"{key}={value}" for key, value in point.items())], pictures)
        elif words[1:3] == ["pipelines", "real"]:
            real.parse(words[3:])
        elif words[1] == "pipelines" and words[2] in ("run", "plan"):
            compose(words[3:], pictures)
    elif words[0].endswith(".py"):
        assert (REPOSITORY / words[0]).is_file(), f"there is no {words[0]}"
        if words[0] in ("pipelines/run_all.py", "pipelines/plan.py"):
            compose(words[1:], pictures)


def check_reptok(words, pictures):
    command, rest = typer.main.get_command(app), list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands"), f"reptok has no command {rest[:1]}"
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    given = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help"}
    assert given <= known, f"{given - known} are no options of {command.name}"


CHECKS = {"make": check_make, "python": check_python, "reptok": check_reptok}


@pytest.mark.parametrize(("program", "words"), found_in([*PAGES, *HEADERS]))
def test_a_command_exists(program, words, pictures):
    CHECKS[program](words, pictures)


def test_commands_are_found():
    assert len(found_in(["README.md"])) > 6 and len(found_in(HEADERS)) > 8


@pytest.mark.parametrize(
    "line", ["make dmeo", "python -m pipelines.nothing", "reptok genrate x", "reptok info x --no"]
)
def test_what_does_not_exist_is_noticed(line, pictures):
    ((program, words),) = commands(f"`{line}`")
    with pytest.raises((AssertionError, ModuleNotFoundError)):
        CHECKS[program](words, pictures)


@pytest.mark.parametrize("line", ['make demo ARGS="train.tokenizer.stpes=3"', 'make real ARGS="stpes=3"'])
def test_a_wrong_setting_is_noticed(line, pictures):
    ((program, words),) = commands(f"`{line}`")
    with pytest.raises(ValueError, match="steps"):
        CHECKS[program](words, pictures)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    missing = [t for t in targets if "://" not in t and not (REPOSITORY / page).parent.joinpath(t).exists()]
    assert missing == []
