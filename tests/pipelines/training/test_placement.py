"""A training that waits for machines has them report anew, and says how many CPUs are free."""

import time

import pytest

from pipelines.dag import cluster
from pipelines.dag.cluster import ClusterConfig
from pipelines.training.placement import nudge, reported_anew, waiting


@pytest.fixture(scope="module")
def one_cpu():
    cluster.configure(ClusterConfig(num_cpus=1))
    cluster.ensure()
    yield
    cluster.shutdown()


def test_every_machine_does_something_that_it_must_report(one_cpu):
    import ray

    assert nudge() == [node["NodeID"] for node in ray.nodes()]


def test_only_what_waits_is_told(one_cpu, capsys):
    from ray.util import placement_group, remove_placement_group

    with reported_anew(0.2):
        time.sleep(1)
    assert waiting() == [] and capsys.readouterr().out == ""
    group = placement_group([{"CPU": 1}] * 8)
    try:
        with reported_anew(0.2):
            deadline = time.monotonic() + 60
            said = ""
            while "waiting for machines" not in said and time.monotonic() < deadline:
                time.sleep(0.2)
                said += capsys.readouterr().out
        assert len(waiting()) == 1
        assert "waiting for machines: 1 of the cluster's 1 CPUs are free" in said
    finally:
        remove_placement_group(group)
