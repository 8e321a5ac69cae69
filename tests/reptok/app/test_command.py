"""`reptok app` before there is a page."""

import socket
import sys

import pytest

from reptok import cli
from reptok.app.server import is_loopback, serve


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    monkeypatch.setattr("sys.argv", ["reptok", "app", "zoo/reptok_class"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and "pip install 'reptok[app]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} cannot be listened on .*another --port"):
            serve(None, "m", "127.0.0.1", port, print)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("example.org", False),
    ],
)
def test_which_addresses_are_this_machines_alone(host, alone):
    assert is_loopback(host) is alone
