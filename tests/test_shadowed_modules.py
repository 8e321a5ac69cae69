"""Files in the working folder that are called like modules are never imported, by no command and no child."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SHADOWS = (
    "pickle",
    "json",
    "numpy",
    "torch",
    "ray",
    "pytest",
    "random",
    "hydra",
    "pyarrow",
    "secrets",
    "uuid",
)


def shadow(folder: Path) -> Path:
    """Put a file into `folder` for every name, which tells of its import; returns what they write to."""
    witness = folder.parent / "imported"
    for name in SHADOWS:
        path = folder / f"{name}.py"
        path.write_text(f"open({str(witness)!r}, 'a').write({name!r} + ' ')\nraise SystemExit(9)\n")
    return witness


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MAKE", "MFLAGS"))
    }
    return subprocess.run(
        command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_the_shadows_would_be_seen(here: Path) -> None:
    witness = shadow(here)
    assert run([sys.executable, "-c", "import pickle"], here).returncode == 9
    assert witness.read_text() == "pickle "


CALL = "from pipelines.dag.own_process import call; import math; print(call(math.sqrt, 2.25))"


@pytest.mark.parametrize(
    "command",
    [
        [str(REPOSITORY / "pipelines/plan.py"), "root=runs"],
        pytest.param([str(REPOSITORY / "pipelines/dry_run.py"), "rows=5"], marks=pytest.mark.slow),
        [str(REPOSITORY / "pipelines/purge.py"), "root=runs", "opt_out=/dev/null"],
        [str(REPOSITORY / "pipelines/run_all.py"), "verify=true", "root=runs"],
        [str(BIN / "reptok"), "--help"],
        ["-P", "-c", CALL],
        pytest.param(["-P", "-m", "benchmarks", "stored_bytes"], marks=pytest.mark.slow),
    ],
    ids=lambda command: Path(command[0]).name if len(command[0]) > 2 else command[2][:10],
)
def test_commands_in_a_folder_with_such_files(command: list[str], here: Path) -> None:
    witness = shadow(here)
    (here / "runs").mkdir()
    done = run([sys.executable, *command], here)
    assert not witness.exists(), witness.read_text()
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_child_of_a_program_that_has_the_folder_in_its_path(here: Path) -> None:
    """As `python -m` puts it there, and as `PYTHONPATH=.` does; the program itself has imported already."""
    source = f"open({str(here.parent / 'imported')!r}, 'a').write(__name__)"
    program = f"""
import math, os, sys
from pathlib import Path
from pipelines.dag.own_process import call
sys.path[:0] = [os.getcwd(), "", "."]
for name in {SHADOWS!r}:
    Path(name + ".py").write_text({source!r})
print(call(math.sqrt, 2.25))
"""
    done = run([sys.executable, "-c", program], here)
    assert done.stdout == "1.5\n", done.stderr[-2000:]
    assert not (here.parent / "imported").exists()


def test_what_stands_in_the_working_folder_alone_is_still_found(here: Path) -> None:
    (here / "own_module_of_the_user.py").write_text("def twice(x):\n    return 2 * x\n")
    program = "import own_module_of_the_user as m\nfrom pipelines.dag.own_process import call\n"
    program += "print(call(m.twice, 4))"
    assert run([sys.executable, "-c", program], here, PYTHONPATH=str(here)).stdout == "8\n"


AT_START = {
    "a module": ("sitecustomize.py",),
    "a package": ("sitecustomize", "__init__.py"),
    "the user's": ("usercustomize.py",),
}


@pytest.mark.parametrize("lay", AT_START)
@pytest.mark.parametrize("how", ["-c", "-m"])
def test_what_python_runs_at_its_start_is_not_taken_from_the_working_folder(
    lay: str, how: str, here: Path
) -> None:
    witness, planted = here.parent / "imported", here.joinpath(*AT_START[lay])
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"open({str(witness)!r}, 'a').write('ran')")
    (here / "program.py").write_text(CALL)
    done = run([sys.executable, how, CALL if how == "-c" else "program"], here, PYTHONNOUSERSITE="")
    assert done.stdout == "1.5\n", done.stderr[-2000:]
    assert not witness.exists()


@pytest.mark.parametrize("target", ["plan", "test ARGS='--collect-only tests/test_dependencies.py'"])
def test_targets_of_make_in_a_checkout_with_such_files(target: str, here: Path) -> None:
    if not (REPOSITORY / ".venv" / ".ready").exists():
        pytest.skip("no .venv that make would use")
    for entry in REPOSITORY.iterdir():
        if entry.name not in (".git", "runs"):
            (here / entry.name).symlink_to(entry)
    witness = shadow(here)
    done = run(["sh", "-c", f"make {target}"], here)
    assert not witness.exists(), witness.read_text()
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
