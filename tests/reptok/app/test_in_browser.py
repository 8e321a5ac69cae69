"""`reptok app` as a person uses it: started by its command, clicked through in a browser without a window."""

import io
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reptok
from reptok.app import actions
from tests.containers import browser

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[3]
MODEL = REPOSITORY / "zoo/reptok_class"
STEPS = 50
WITNESS = """
import os, sys

def seen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        place = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        with open(os.environ["WITNESS"], "a") as file:
            file.write(f"{place[0] if isinstance(place, tuple) else place}\\n")

sys.addaudithook(seen)
"""
SHOWN = "[...document.images].filter(image => image.offsetParent)"
FILES = (
    "[...document.querySelectorAll('input[type=file]')]"
    ".filter(field => field.closest('[role=tabpanel]').offsetParent)"
)
NUMBERS = "[...document.querySelectorAll('input[type=number]')].filter(field => field.offsetParent)"
SLIDE = """
(slider => {
    slider.value = 1;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    slider.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}));
})([...document.querySelectorAll('input[type=range]')].filter(field => field.offsetParent).at(-1))
"""


@pytest.fixture
def served(tmp_path):
    """The page's address and the hosts that its server spoke to; the command has ended well afterwards."""
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment["WITNESS"] = str(tmp_path / "hosts")
    command = [str(Path(sys.executable).with_name("reptok")), "app", str(MODEL), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as app:
        lines, address = [], None
        while address is None and (line := app.stdout.readline()):
            lines.append(line)
            address = re.match(r"http://127\.0\.0\.1:\d+", line)
        try:
            assert address is not None, f"the command has ended: {lines}"
            yield address[0], tmp_path / "hosts"
        finally:
            app.send_signal(signal.SIGTERM)
            said = app.communicate(timeout=60)[0]
    assert app.returncode == 0, said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("reptok-app-*"))


@pytest.fixture
def tab(tmp_path):
    if browser.program() is None:
        pytest.skip("no browser is here")
    with browser.page(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    found = []
    for name, size in (("first.png", (80, 64)), ("second.png", (64, 64))):
        small = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(tmp_path / name)
        found.append(tmp_path / name)
    return found


def press(tab, words, role="button"):
    """Click what says these words."""
    kind = "[role=tab]" if role == "tab" else "button.primary"
    shown = f"[...document.querySelectorAll('{kind}')].filter(button => button.offsetParent)"
    found = f"{shown}.find(button => button.innerText.trim() === '{words}')"
    tab.wait_until(f"!!{found}")
    tab.evaluate(f"{found}.click()")


def pictures(tab, number):
    """The pixels of the pictures that the page shows, once there are so many."""
    tab.wait_until(f"{SHOWN}.filter(i => i.complete && i.naturalWidth > 0).length === {number}")
    sources = tab.evaluate(f"{SHOWN}.map(image => image.src)")
    return [pixels(Image.open(io.BytesIO(urllib.request.urlopen(source).read()))) for source in sources]


def pixels(picture):
    return np.asarray(picture.convert("RGB")).astype(int)


def near(shown, wanted):
    return shown.shape == wanted.shape and abs(shown - wanted).max() <= 1


def test_a_person_generates_reconstructs_and_interpolates(served, tab, files):
    address, hosts = served
    pipe = reptok.load_pretrained(MODEL)
    images = [actions.read_picture(pipe.tokenizer, file) for file in files]
    own = [actions.reconstruct(pipe.tokenizer, image, num_steps=STEPS, seed=0) for image in images]

    tab.open(address)
    tab.wait_for("Generate", "Guidance", "Seed", "Class")
    press(tab, "Generate")
    shown = pictures(tab, 4)
    for picture, wanted in zip(shown, pipe(0, num_images=4, seed=0), strict=True):
        assert near(picture, pixels(wanted))

    press(tab, "Reconstruct", "tab")
    tab.choose(f"{FILES}[0]", files[0])
    pictures(tab, 1)
    press(tab, "Reconstruct")
    shown = pictures(tab, 4)[1:]
    for picture, wanted in zip(shown, (own[0].original, own[0].autoencoder, own[0].tokenizer), strict=True):
        assert near(picture, pixels(wanted))
    assert round(own[0].cosine, 4) in map(float, tab.evaluate(f"{NUMBERS}.map(field => field.value)"))

    press(tab, "Between two pictures", "tab")
    for number, file in enumerate(files):
        tab.choose(f"{FILES}.at({-number})", file)
        pictures(tab, number + 1)
    press(tab, "Interpolate")
    first, between, second = pictures(tab, 5)[2:]
    assert near(first, pixels(own[0].tokenizer)) and near(second, pixels(own[1].tokenizer))
    assert not near(between, first) and not near(between, second)
    before = tab.evaluate(f"{SHOWN}[3].src")
    tab.evaluate(SLIDE)
    tab.wait_until(f"{SHOWN}.length === 5 && {SHOWN}[3].src !== '{before}'")
    assert near(pictures(tab, 5)[3], pixels(own[1].tokenizer))

    press(tab, "Between two classes", "tab")
    press(tab, "Interpolate")
    first, between, second = pictures(tab, 3)
    assert near(first, pixels(pipe(0, seed=0)[0])) and near(between, first)  # one class at both ends

    assert tab.problems == []
    assert tab.hosts == {"127.0.0.1"}
    spoken = set(hosts.read_text().split()) if hosts.exists() else set()
    assert spoken <= {"127.0.0.1", "localhost"}, spoken


def test_a_mistake_is_a_sentence_on_the_page(served, tab):
    tab.open(served[0])
    press(tab, "Reconstruct", "tab")
    press(tab, "Reconstruct")
    tab.wait_for("there is no picture yet: choose a file, or drop one into the field", seconds=60)


def test_a_page_of_another_name_is_not_served(served):
    """A site that resolves its own name to this machine reads nothing."""
    asked = urllib.request.Request(served[0], headers={"Host": "evil.test"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    assert refused.value.code == 400
    assert b"<gradio-app" in urllib.request.urlopen(served[0]).read()
