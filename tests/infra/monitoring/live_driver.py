"""A small run on a cluster that is there, which tells every metric, one NaN among them, and then waits."""

import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "pipelines" / "dag"))

from toy_shards import Shout, shards
from toy_stages import Toy

from pipelines.dag import runner
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shards import map_shards
from pipelines.dag.tracking import TrackingConfig


class Words(Toy):
    def run(self, inputs, out):
        return map_shards(shards(), Shout(f"{sys.argv[1]}/journal"), out)


class Training(Toy):
    def run(self, inputs, out):
        for step in range(1, 21):
            curves = {"train/loss": 1 / step, "speed/images_per_second": 64.0, "speed/mfu": 0.4}
            out.log.metrics({**curves, "data/wait_fraction": 0.01, "train/skipped": 0.0}, step)
            if step == 10:
                out.log.metrics({"train/loss": math.nan}, step)
            out.log.progress(step, 20, "steps")
        while not Path(f"{sys.argv[1]}/seen").exists():
            time.sleep(0.5)
        out.write_bytes("0.txt", b"trained")
        return {}


if __name__ == "__main__":
    runner.run(
        [Words("words"), Training("training", ("words_out",))],
        root=f"{sys.argv[1]}/store",
        cluster=ClusterConfig(address="auto"),
        tracking=TrackingConfig(uri="http://127.0.0.1:9"),  # nobody answers there
    )
    print("the driver has ended", flush=True)
