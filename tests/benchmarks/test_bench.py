"""The benchmarks' clock: both sides in turns, the median of the ratios."""

import pytest
import torch

from benchmarks import checkpoint, feeding, generator_step, loader, ray_train, tokenizer_step
from benchmarks import compare as module
from benchmarks.compare import compare
from reptok.autoencoder import SD_VAE
from reptok.bench.sizes import TINY
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, RepTokConfig
from reptok.encoder.ssl import SSLEncoder

ENCODER = EncoderConfig(name="random_vitdebug8_reg", image_size=64)
TOKENIZER = RepTokConfig(
    encoder=ENCODER,
    decoder=DecoderConfig(width=64, depth=1, heads=2, latent_size=8, token_dim=32),
    autoencoder=AutoencoderConfig(scale=0.18215, sample=False),
)


def test_the_ratio_is_the_median_of_the_pairs(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(module.time, "process_time", lambda: clock[0])
    durations = {
        "ours": [9.0, 1.0, 2.0, 4.0],
        "theirs": [90.0, 3.0, 4.0, 100.0],
    }  # the first of each warms up

    def side(name):
        def work():
            calls.append(name)
            clock[0] += durations[name].pop(0)

        return work

    found = compare("work", side("ours"), "peer", side("theirs"), "", pairs=3)
    assert calls == ["ours", "theirs"] * 4
    assert (found.ours, found.theirs, found.ratio) == (2.0, 4.0, pytest.approx(3.0))


VAE = {**SD_VAE, "block_out_channels": [16] * 4, "norm_num_groups": 8, "layers_per_block": 1}


@pytest.fixture
def one_pair(monkeypatch):
    for bench in (feeding, generator_step, loader, tokenizer_step):
        monkeypatch.setattr(bench, "PAIRS", 1)
    monkeypatch.setattr(feeding, "SECONDS", 0.1)


def test_a_step_from_the_cache_is_the_step_from_pixels(one_pair, monkeypatch):
    assert "relative error" in tokenizer_step.run(TOKENIZER, VAE).checked
    assert "relative error" in generator_step.run(TINY.mixer, ENCODER, batch=4).checked
    frozen = SSLEncoder.frozen
    drift = iter(range(1, 9))  # a cache of other targets than the encoder gives
    monkeypatch.setattr(
        SSLEncoder, "frozen", lambda self, images: frozen(self, images) + torch.randn(32) * next(drift)
    )
    with pytest.raises(RuntimeError, match="off by"):
        tokenizer_step.run(TOKENIZER, VAE)


def test_an_epoch_of_the_loader_is_that_of_webdataset(one_pair, monkeypatch):
    assert "each once" in loader.run(1200).checked
    assert "waiting for data" in feeding.run(TOKENIZER, 1200).checked
    monkeypatch.setattr(loader, "_theirs", lambda path: iter([([0], *torch.zeros(2, 1, 1))]))
    with pytest.raises(RuntimeError, match="different samples"):
        loader.run(1200)


def test_both_checkpoints_hold_the_state():
    found = checkpoint.run(DecoderConfig(width=64, depth=1, heads=2, token_dim=32), pairs=1)
    assert found.peer == "torch.save" and "read back from both" in found.checked


def test_the_bare_loop_trains_as_the_projects_own(monkeypatch):
    monkeypatch.setattr(ray_train, "STEPS", 2)
    recorded = []

    class Log:
        def metrics(self, values, step):
            recorded.append((step, len(values)))

        def progress(self, done, total):
            pass

    averages, (_, bare) = ray_train._tracked(Log(), 6)(), ray_train._bare()
    assert ray_train._stands_for(averages) == pytest.approx(bare, rel=1e-6)
    assert recorded == [(7, 20), (8, 20)]


def test_the_finished_workflow_of_the_rerun_bench_is_finished(tmp_path):
    from benchmarks.rerun import STAGES, publish, run_again

    publish(str(tmp_path), 3)
    assert run_again(str(tmp_path), 3) == ["skip"] * STAGES
