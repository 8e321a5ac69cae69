import pytest

from reptok.training.config import TrainConfig


def config(**values) -> TrainConfig:
    return TrainConfig(**{"steps": 10, "batch_size": 8, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "fsdp", "workers": 1}, "fsdp shards the model among workers, and there is 1"),
        ({"workers": 8, "shards": 4}, "shards 4 divides the model, and train.strategy ddp copies it"),
        ({"strategy": "fsdp", "workers": 8, "shards": 3}, "shards 3 does not divide 8 workers"),
        ({"strategy": "fsdp", "workers": 8, "shards": 1}, "shards 1 does not divide 8 workers"),
        ({"strategy": "fsdp", "workers": 4, "shards": 8}, "shards 8 does not divide 4 workers"),
        (
            {"strategy": "fsdp", "workers": 4, "shards": 2, "min_workers": 2, "checkpoint_every_seconds": 9},
            "shards 2 needs a fixed number of workers",
        ),
        ({"cuda_graphs": True}, "cuda_graphs records the step of a GPU, and train.gpus_per_worker is 0"),
        (
            {"compile_mode": "max-autotune-no-cudagraphs"},
            "compile_mode max-autotune-no-cudagraphs says how to compile, and train.compile is false",
        ),
        ({"workers": 0}, "train.workers must be at least 1, not 0"),
        ({"workers": 2, "gpus_per_worker": 0.5}, "one GPU of its own"),
        ({"workers": 2, "gpus_per_worker": 2}, "one GPU of its own"),
        ({"workers": 4, "min_workers": 2}, "checkpoint_every_seconds to 300 or less, not 600"),
        ({"workers": 4, "accumulate": 3}, "cannot be divided among 4 workers in 3 parts"),
        ({"workers": 1, "min_workers": 2}, "must lie between 0 and train.workers 1"),
        ({"time_loc": -0.5}, "are of logit-normal times; set train.time_sampling=logit_normal"),
        ({"accumulate": 0}, "train.accumulate must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_what_makes_sense_is_taken():
    config(strategy="fsdp", workers=2, gpus_per_worker=1)
    config(strategy="fsdp", workers=8, shards=4)
    config(strategy="fsdp", workers=4, shards=4)
    config(cuda_graphs=True, gpus_per_worker=1)
    config(compile=True, compile_mode="max-autotune-no-cudagraphs")
    config(workers=1, gpus_per_worker=0.5)
    config(workers=4, min_workers=2, checkpoint_every_seconds=300)
    config(workers=4, accumulate=2)
