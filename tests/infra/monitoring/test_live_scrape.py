"""A real Prometheus scrapes a real head: every metric arrives, and a NaN is told by a counter."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from pathlib import Path

import namespace
import pytest
import yaml

from pipelines.dag.metrics import TABLE

HERE = Path(__file__).parent
MONITORING = HERE.parents[2] / "infra" / "monitoring"
PASSWORD = "open"
HASHED = "$2b$10$41ytEgnaRH9L3Qx2f.DpauYnb0Hmh1i8WlkcFH6agxwj3ajgbJg9K"
SCRIPT = """
start_head
prometheus --config.file=$HOME/prometheus.yml --web.config.file=$HOME/web.yml \\
    --storage.tsdb.path=$HOME/tsdb --web.listen-address=127.0.0.1:9090 > $HOME/prometheus.log 2>&1 &
PROMETHEUS=$!
export PYTHONPATH=$PYTHONPATH:$PWD/tests/pipelines/dag
$PYTHON tests/infra/monitoring/live_driver.py $HOME > $HOME/driver.log 2>&1 &
DRIVER=$!
$PYTHON $HOME/ask.py > $HOME/found.json
touch $HOME/seen
wait $DRIVER; echo "driver ended with $?"
kill $PROMETHEUS $HEAD; wait $PROMETHEUS $HEAD
"""
ASK = """
import base64, json, sys, time, urllib.error, urllib.parse, urllib.request

def get(path, login=True):
    request = urllib.request.Request("http://127.0.0.1:9090" + path)
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(b"reptok:{password}").decode())
    return json.load(urllib.request.urlopen(request, timeout=10))

wanted, end, found = {wanted}, time.monotonic() + 150, {{}}
while time.monotonic() < end and not set(wanted) <= set(found):
    time.sleep(3)
    for name in wanted:
        try:
            result = get("/api/v1/query?query=" + urllib.parse.quote(name))["data"]["result"]
        except OSError:
            continue
        if result:
            found[name] = [(series["metric"], series["value"][1]) for series in result]
time.sleep(20)  # the rules take two rounds
try:
    get("/api/v1/alerts", login=False)
    anonymous = 200
except urllib.error.HTTPError as error:
    anonymous = error.code
alerts = [alert["labels"]["alertname"] for alert in get("/api/v1/alerts")["data"]["alerts"]]
noisy = get("/api/v1/label/__name__/values")["data"]
print(json.dumps(dict(found=found, alerts=alerts, names=noisy, anonymous=anonymous)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not namespace.allowed(), reason="needs the right to make a network namespace (root)")
@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed (Debian: prometheus)")
def test_every_registered_metric_arrives(home):
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"], config["alerting"]  # no DNS in here
    job["static_configs"] = [{"targets": ["127.0.0.1:8080"]}]
    config["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    config["rule_files"] = [str(MONITORING / "rules.yml")]
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    (home / "web.yml").write_text(f"basic_auth_users: {{reptok: {HASHED}}}\n")
    exported = [metric.exported for metric in TABLE.values()]
    (home / "ask.py").write_text(textwrap.dedent(ASK).format(wanted=exported, password=PASSWORD))
    done = namespace.run(SCRIPT, home, seconds=400)
    logs = "".join(path.read_text()[-3000:] for path in home.glob("*.log"))
    assert "driver ended with 0" in done.stdout, done.stdout + done.stderr + logs
    assert "error:" not in (home / "driver.log").read_text(), logs
    told = json.loads((home / "found.json").read_text())
    assert set(exported) - set(told["found"]) == set(), logs

    def value(name, **labels):
        (found,) = [v for series, v in told["found"][name] if labels.items() <= series.items()]
        return float(found)

    assert value("ray_reptok_rows_read_total", stage="words") == 60
    assert value("ray_reptok_rows_dropped_total", stage="words", reason="other") == 12
    assert value("ray_reptok_nonfinite_total", stage="training") == 1
    assert value("ray_reptok_training_loss", stage="training") == pytest.approx(1 / 20)
    assert value("ray_reptok_stage_state", stage="training", state="running") == 1
    assert {"NonFiniteLosses", "TrackingDropsRecords"} <= set(told["alerts"]), "born above 0, and they fire"
    assert told["anonymous"] == 401
    assert not [name for name in told["names"] if re.match("ray_(grpc_server|operation)_", name)]
    assert not [key for series in told["found"].values() for s, _ in series for key in s if "otel" in key]
