"""A batch is prepared while the one before it is in use, in order, and once."""

import threading

import pytest
import torch

from reptok.data.stream import Batches
from reptok.training.ahead import one_ahead
from reptok.training.step import StepRandom

CPU = torch.device("cpu")


def test_the_next_batch_is_prepared_while_one_is_in_use():
    begun = [threading.Event() for _ in range(4)]

    def prepare(number):
        begun[number].set()
        return 10 * number

    seen = []
    for made in one_ahead((n for n in range(4)), prepare, CPU):
        seen.append(made)
        if made < 30:
            assert begun[made // 10 + 1].wait(10), "nobody asked for it yet"
    assert seen == [0, 10, 20, 30]


def test_an_error_of_the_preparation_reaches_who_takes_the_batch():
    def prepare(number):
        if number == 1:
            raise ValueError("no such caption")
        return number

    stream = one_ahead((n for n in range(3)), prepare, CPU)
    assert next(stream) == 0
    with pytest.raises(ValueError, match="no such caption"):
        next(stream)


def test_closing_it_closes_what_it_reads():
    closed = []

    def numbers():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    stream = one_ahead(numbers(), lambda number: number, CPU)
    next(stream)
    stream.close()
    assert closed == [True]


@pytest.mark.parametrize("kind", ["tokenizer", "text", "class"])
def test_a_prepared_batch_gives_the_same_losses(kind, trainings, tiny_models, small_dataset, tmp_path):
    data = trainings.write_data(tmp_path, small_dataset, tiny_models)
    training = trainings.Training(kind, tiny_models, data)
    batch = Batches(training.data, 4, 0).read(0)
    prepared = training.objective.prepared(batch, CPU)
    for rows in (slice(0, 4), slice(1, 3)):
        size = rows.stop - rows.start
        draws = [StepRandom(0, 0, size, slice(0, size)) for _ in range(2)]
        whole = training.objective(batch.part(rows), draws[0])["loss"]
        ahead = training.objective(prepared.part(rows), draws[1])["loss"]
        assert torch.allclose(whole, ahead, rtol=1e-5)
    assert all(tensor.device == CPU for tensor in prepared.tensors())
