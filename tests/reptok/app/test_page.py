"""The page's calls over its own protocol: one at a time, and errors as sentences."""

import socket
import threading
import time

import pytest
import uvicorn
from PIL import Image

from reptok.app.server import application
from reptok.pipeline import RepTokPipeline
from tests.fixtures.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="module")
def served(tiny_models, tmp_path_factory):
    """A page on a model that takes its time; its address, and how many callers were in the model at once."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
            patch.setenv(name, "")  # what the application sets is not for the tests after these
        tokenizer, lock, inside, seen = tiny_tokenizer(tiny_models).eval(), threading.Lock(), [], []
        tokenize = tokenizer.tokenize

        def slowly(images):
            with lock:
                inside.append(images)
                seen.append(len(inside))
            time.sleep(0.5)
            with lock:
                inside.pop()
            return tokenize(images)

        tokenizer.tokenize = slowly
        pipe, folder = RepTokPipeline(tokenizer), str(tmp_path_factory.mktemp("pictures"))
        web = application(pipe, "<b>A model</b>", "127.0.0.1", folder)
        server = uvicorn.Server(uvicorn.Config(web, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
        server.should_exit = True
        thread.join()


@pytest.fixture
def picture(tmp_path):
    from gradio_client import handle_file

    Image.new("RGB", (40, 32), "red").save(tmp_path / "red.png")
    return handle_file(str(tmp_path / "red.png"))


def client(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 60})


def test_two_people_are_served_one_after_the_other(served, picture):
    address, seen = served
    people = [client(address) for _ in range(2)]
    waiting = [person.submit(picture, 2, 0, api_name="/reconstruct") for person in people]
    waiting += [person.submit(picture, picture, 0.5, 2, 0, api_name="/interpolate") for person in people]
    for job in waiting:
        assert len(job.result(timeout=60)) > 2
    assert seen == [1, 1, 1, 1]


def test_a_mistake_is_a_sentence(served, picture):
    with pytest.raises(Exception, match="there is no picture yet: choose a file"):
        client(served[0]).predict(None, 2, 0, api_name="/reconstruct")


def test_a_model_without_a_generator_offers_what_it_can_do(served):
    names = client(served[0]).view_api(return_format="dict")["named_endpoints"]
    assert set(names) == {"/reconstruct", "/interpolate"}
