"""An installed wheel, far from any checkout."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with the wheel, and with this one's other packages."""
    if not UV.exists():
        pytest.skip("uv, which builds the wheel, is not beside this Python; `make test` brings it")
    folder = tmp_path_factory.mktemp("wheel")
    source, leave_out = folder / "source", shutil.ignore_patterns("__pycache__")
    for name in ("reptok", "pipelines", "examples", "benchmarks", "conf", "zoo"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = ["build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([UV, *build, "--out-dir", folder, source], check=True)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([UV, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    (site,) = (folder / "venv").glob("lib/*/site-packages")
    (site / "zz_others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_an_installed_wheel_plans_the_demo(python, tmp_path):
    done = subprocess.run(
        [python, "-m", "pipelines", "plan"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train_generator" in done.stdout
    assert str(REPOSITORY) not in done.stdout


@pytest.mark.slow
def test_an_installed_wheel_has_the_emoji_and_their_licences(python, tmp_path):
    code = (
        "from examples.emoji.pictures import PICTURES, load; print(len(load()), PICTURES); "
        "print([PICTURES.with_name(name).is_file() for name in ('NOTICE', 'OFL.txt')])"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert str(REPOSITORY) not in done.stdout
    assert done.stdout.startswith("1584 ") and done.stdout.endswith("[True, True]\n")


def test_every_folder_of_the_configuration_is_in_the_wheel():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["data-files"]
    folders = {path.parent.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("conf/**/*.yaml")}
    missing = {folder for folder in folders if listed.get(f"share/reptok/{folder}") != [f"{folder}/*.yaml"]}
    assert folders and not missing
