"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A process takes a whole file at a time, or the whole folder whose files share a long run."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            together = "tests/integration/"
            return together if nodeid.startswith(together) else super()._split_scope(nodeid)

    return ByFile(config, log)


def _load(name: str) -> ModuleType:
    """A module of `fixtures/`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, FIXTURES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny random models: `autoencoder/`, `encoder/`, `text_encoder/`, for 32 px images."""
    return _load("tiny_models").write_all(tmp_path_factory.mktemp("tiny_models"))


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, Path]:
    """The fixture's module, and a folder with a CLIP that knows four colours."""
    module = _load("small_clip")
    return module, module.write_clip(tmp_path_factory.mktemp("clip") / "colours")


@pytest.fixture(scope="session")
def small_dataset() -> ModuleType:
    """The writers of small `dataset`, `latents` and `tokens` folders."""
    return _load("small_dataset")


@pytest.fixture(scope="session")
def hostile_web() -> ModuleType:
    """A web server that means harm, its bombs, and a witness of connections."""
    return _load("hostile_web")


@pytest.fixture(scope="session")
def nasty_images() -> ModuleType:
    """Odd, damaged and malicious images, each with its fate."""
    return _load("nasty_images")


@pytest.fixture(scope="session")
def trainings() -> ModuleType:
    """Trainings of tiny models on the small dataset."""
    return _load("trainings")


@pytest.fixture(scope="session")
def load_fixture() -> Callable[[str], ModuleType]:
    """`load_fixture(name)`: a module of `fixtures/`."""
    return _load


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """moto's server, with a gate before it."""
    made = _load("s3_server").S3Server()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def s3(s3_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A client of a server with one empty bucket; the environment names both, and a place for copies."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-s3cr3t-s3cr3t")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("REPTOK_CACHE", str(tmp_path / "cache"))
    s3_server.gate = lambda method, path: False
    client = boto3.client("s3")
    for bucket in client.list_buckets()["Buckets"]:
        while there := client.list_objects_v2(Bucket=bucket["Name"]).get("Contents"):
            keys = [{"Key": entry["Key"]} for entry in there]
            client.delete_objects(Bucket=bucket["Name"], Delete={"Objects": keys, "Quiet": True})
        client.delete_bucket(Bucket=bucket["Name"])
    client.create_bucket(Bucket="reptok")
    s3_server.requests.clear()
    s3_server.ranges.clear()
    s3_server.refused = s3_server.sent = 0
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield client
    s3fs.S3FileSystem.clear_instance_cache()
