"""Fixtures for the zoo's trainings."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def no_other_process(monkeypatch):
    """What a training does, without the start of a process: for where that is not the matter."""
    here = SimpleNamespace(call=lambda function, *arguments, shown: function(*arguments))
    monkeypatch.setattr("examples.zoo.stages.own_process", here)
