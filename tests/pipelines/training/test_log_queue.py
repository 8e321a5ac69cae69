import pickle
import threading
import time

import numpy as np

from pipelines.training.log_queue import QueueLog, direct
from reptok.training.preview import Grid

SENT: list = []


def send(messages):
    SENT.extend(messages)


def test_messages_arrive_in_order_and_in_batches_without_the_caller_waiting():
    open_gate, calls = threading.Event(), []

    def slow(messages):
        open_gate.wait()
        calls.append(messages)

    log = QueueLog(slow)
    begun = time.monotonic()
    for step in range(1000):
        log.metrics({"train/loss": 1.0}, step)
    assert not calls and time.monotonic() - begun < 30
    open_gate.set()
    log.flush()
    assert [message[2] for messages in calls for message in messages] == list(range(1000))
    assert len(calls) < 1000


def test_a_log_that_cannot_be_sent_stops_nothing(capsys):
    def broken(messages):
        raise ConnectionError("away")

    log = QueueLog(broken)
    for step in range(3):
        log.metrics({"train/loss": 1.0}, step)
        log.flush()
    assert capsys.readouterr().out.count("warning: the training's curves get lost") == 1


def test_a_log_travels_to_a_worker():
    log = pickle.loads(pickle.dumps(QueueLog(send)))
    log.progress(1, 2)
    log.flush()
    assert SENT[-1] == ("progress", 1, 2)


def test_a_direct_log_draws_at_once():
    class Log:
        pictures: list = []  # noqa: RUF012

        def picture(self, name, image, step=None):
            self.pictures.append((name, step, image.size))

    log = Log()
    pixels = np.zeros((8, 8, 3), np.uint8)
    direct(log).grid(Grid("samples", ["seed 0", "seed 1"], [("a cat", [pixels, pixels])]), 4)
    assert log.pictures[0][:2] == ("samples", 4)
