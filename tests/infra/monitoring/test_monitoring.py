"""Monitoring as code: promtool on the very files, and no name in them that nobody exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.dag.metrics import TABLE

HERE = Path(__file__).parent
MONITORING = HERE.parents[2] / "infra" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
BUILTIN = {"up"}


def tool(name: str) -> str:
    if not (found := shutil.which(name)):
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return found


def expressions() -> dict[str, str]:
    """Every PromQL expression by the place where it stands."""
    found = {}
    for group in RULES["groups"]:
        for rule in group["rules"]:
            found[f"rules.yml: {rule.get('alert') or rule['record']}"] = rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                found[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


def names(expression: str) -> set[str]:
    """Names of the metrics that an expression reads."""
    bare = re.sub(r"\{[^}]*\}|\b(?:by|without|on|ignoring)\s*\([^)]*\)|\[[^\]]*\]", "", expression)
    words = set(re.findall(r"[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])", bare))
    return words - {"and", "or", "unless", "offset", "by", "m"}


def unknown(expression: str) -> set[str]:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    ours = {metric.exported for metric in TABLE.values()}
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    rays = {f"ray_{name}" for name in METRICS_GAUGES}
    return names(expression) - ours - recorded - rays - BUILTIN


def test_every_name_in_rules_and_dashboards_is_exported_by_somebody():
    assert len(expressions()) > 30
    assert {place: found for place, text in expressions().items() if (found := unknown(text))} == {}


@pytest.mark.parametrize(
    "wrong",
    [
        "sum by (stage) (rate(ray_reptok_rows_read[5m]))",  # Ray adds _total
        "max(ray_reptok_training_los) > 3",
        'reptok:rows_gone:growth15m{stage="download"} > 0',
        "ray_node_disk_utilisation_percentage > 90",
        "rate(ray_reptok_nonfinite_total[5m]) / ray_reptok_steps",
    ],
)
def test_a_wrong_name_is_found(wrong):
    assert len(unknown(wrong)) == 1


def test_every_metric_is_shown_or_judged_somewhere():
    used = set().union(*(names(text) for text in expressions().values()))
    assert {metric.exported for metric in TABLE.values()} <= used


def test_promtool_takes_the_rules_and_their_unit_tests_pass():
    promtool = tool("promtool")
    subprocess.run([promtool, "check", "rules", MONITORING / "rules.yml"], check=True, timeout=60)
    done = subprocess.run(
        [promtool, "test", "rules", HERE / "rules_test.yml"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


# A mutant that survives here means that an alert is asserted nowhere, in firing or in keeping quiet.
MUTANTS = {
    "growth from nothing is not seen": (r" or 0 \* ray_reptok_nonfinite_total", ""),
    "no series of rows kept is no failure": (r"rows_kept:growth15m or 0 \* [\w:]+", "rows_kept:growth15m"),
    "a choosy selection is a failure": (r'\{stage=~"download\|caption\|import_images"\}', ""),
    "a few rows are enough": (">= 200", ">= 100"),
    "half is not the limit": ("< 0.5", "< 0.05"),
    "stalled after two hours": ("> 3600", "> 7200"),
    "a waiting training is patient": ("data_wait\\) > 0.3", "data_wait) > 0.6"),
    "the disk is full at 95": ("> 90", "> 95"),
    "a node that left the DNS is forgotten": (r"vector\(0\)\) <", "vector(0)) >"),
    "failures do not fire": ('state="failed"', 'state="blocked"'),
    "drops do not fire": ("tracking_dropped:growth15m > 0", "tracking_dropped:growth15m > 5"),
    "a node may be down": (r"up\{job=\"ray\"\} == 0", 'up{job="rays"} == 0'),
    "the disk is not foreseen": (r"4 \* 3600\) < 0", "60) < 0"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_unit_tests_notice_a_changed_rule(name, tmp_path):
    promtool = tool("promtool")
    pattern, replacement = MUTANTS[name]
    rules = (MONITORING / "rules.yml").read_text()
    changed, count = re.subn(pattern, lambda _: replacement, rules)
    assert count >= 1, "the mutant's pattern is not in the rules any more"
    (tmp_path / "rules.yml").write_text(changed)
    unit = (HERE / "rules_test.yml").read_text().replace("../../../infra/monitoring/", "")
    (tmp_path / "unit.yml").write_text(unit)
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "unit.yml"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0 and "FAILED" in done.stdout + done.stderr


def test_configurations_are_valid():
    subprocess.run(
        [tool("promtool"), "check", "config", "--syntax-only", MONITORING / "prometheus.yml"],
        check=True, timeout=60,
    )  # fmt: skip
    subprocess.run([tool("amtool"), "check-config", MONITORING / "alertmanager.yml"], check=True, timeout=60)


def test_every_container_is_scraped_and_no_secret_stands_in_a_file():
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["type"] == "A" and {"head", "worker", "gpu-worker"} == set(found["names"])
    for path in MONITORING.rglob("*"):
        if path.is_file():
            for line in path.read_text().splitlines():
                assert (
                    not re.search(r"(?i)(password|secret|token)\b\s*:\s*(?!/run/)\S", line)
                    or "$__file" in line
                )


def test_dashboards_are_of_the_provisioned_source():
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (only,) = source["datasources"]
    titles = set()
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        titles.add(board["uid"])
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == only["uid"] and panel["targets"], panel["title"]
    assert len(titles) == len(DASHBOARDS) == 3
