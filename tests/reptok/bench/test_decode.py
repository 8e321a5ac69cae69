import threading
import time

from typer.testing import CliRunner

from reptok.bench import decode
from reptok.bench.commands import app
from reptok.bench.decode import PART, decode_rates
from reptok.bench.feed import jpegs
from reptok.data.images import decode_image


def test_a_row_says_how_many_threads_decode_at_a_time(monkeypatch):
    lock, running, peaks, done = threading.Lock(), set(), [], []

    def slowly(file):
        with lock:
            running.add(threading.get_ident())
            peaks.append(len(running))
        time.sleep(0.002)
        image = decode_image(file)
        with lock:
            running.remove(threading.get_ident())
            done.append(file)
        return image

    monkeypatch.setattr(decode, "decode_image", slowly)
    files, found = jpegs(16, 6 * PART), []
    for rate in decode_rates(files, 16, seconds=0.01, cores=3):
        found.append((rate.threads, max(peaks)))
        assert set(done) == set(files) and rate.per_second > 0 and rate.per_core > 0
        peaks.clear(), done.clear()
    assert found == [(1, 1), (2, 2), (3, 3)]


def test_the_command_decodes_a_shard(tmp_path, small_dataset):
    small_dataset.write_dataset(tmp_path / "dataset")
    shard = tmp_path / "dataset" / "train-00001.tar"
    done = CliRunner().invoke(app, ["decode", "--shard", str(shard), "--size", "32", "--seconds", "0.01"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("6 files of ") and lines[2].split()[0] == "1"
