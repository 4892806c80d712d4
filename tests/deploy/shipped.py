"""The worker's metrics: what it exposes, and what of that the CloudWatch agent ships."""

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from replayer.ledger import Ledger
from replayer.metrics import Reading, exposition

IMAGE = Path(__file__).resolve().parents[2] / "worker/image"


def agent() -> Any:
    """Its configuration."""
    return json.loads((IMAGE / "cloudwatch-agent.json").read_text())


def processor() -> Any:
    """What it makes of metrics."""
    return agent()["logs"]["metrics_collected"]["prometheus"]["emf_processor"]


def declaration() -> Any:
    """Of the metrics that it takes."""
    (only,) = processor()["metric_declaration"]
    return only


def exposed() -> set[str]:
    """The names of all samples of a worker that has replayed to a destination."""
    ledger = Ledger()
    ledger.destination("http://test.internal")
    reading = Reading(ledger, shards=2, shards_alive=2, generation=1, config_errors=0, receive_buffer=1)
    families = text_string_to_metric_families(exposition(reading).decode())
    return {sample.name for family in families for sample in family.samples}


def shipped() -> set[str]:
    """Those of them that become metrics of CloudWatch."""
    patterns = declaration()["metric_selectors"]
    return {name for name in exposed() if any(re.search(pattern, name) for pattern in patterns)}
