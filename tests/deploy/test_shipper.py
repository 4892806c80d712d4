"""The CloudWatch agent's configuration: of the form that the agent asks for, and about metrics that the worker has.

Every selected metric costs money (one custom metric each, for the one dimension set), so each metric of the worker is
either selected or left out for a reason; the reasons stand here.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator, ValidationError  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from replayer.ledger import Ledger
from replayer.metrics import Reading, exposition
from replayer.settings import Settings

_IMAGE = Path(__file__).resolve().parents[2] / "worker/image"
_LEFT_OUT = {
    "framed_bytes": "requests_framed says it",
    "duplicate_bytes": "normal with retransmissions",
    "passed_over_bytes": "normal: answers, TLS",
    "given_up_bytes": "requests_given_up says it",
    "holes": "lost_bytes says how much",
    "resynchronised": "in /status",
    "passed_over_flows": "normal",
    "flows_opened": "in /status",
    "flows_joined": "normal after a start",
    "flows_evicted": "in /status",
    "tombstones_evicted": "in /status",
    "offered": "requests_framed says it",
    "unkeyed": "in /status",
    "passed_over": "requests_framed less selected",
    "retried": "in /status",
    "connections_opened": "in /status",
    "responses": "replayed says it; the class of status is no dimension",
    "held_bytes": "comes and goes between two looks",
    "flows": "comes and goes between two looks",
    "tombstones": "comes and goes between two looks",
    "queued": "comes and goes between two looks; dropped says when it was too much",
    "in_flight": "comes and goes between two looks",
    "latency_seconds": "a histogram: the agent ships none",
    "shards": "settings",
    "settings_generation": "differs between workers of different age",
    "receive_buffer_bytes": "settings and sysctl",
}

#: The part of the agent's schema that our configuration touches, after github.com/aws/amazon-cloudwatch-agent,
#: translator/config/schema.json; tighter where that allows anything, so that a misspelt key is found.
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["agent", "logs"],
    "properties": {
        "agent": {
            "type": "object",
            "additionalProperties": False,
            "required": ["region", "run_as_user"],
            "properties": {
                "region": {"type": "string", "minLength": 1, "maxLength": 64},
                "run_as_user": {"type": "string"},
            },
        },
        "logs": {
            "type": "object",
            "additionalProperties": False,
            "required": ["logs_collected", "metrics_collected"],
            "properties": {
                "force_flush_interval": {"type": "integer", "minimum": 1, "maximum": 172_800},
                "logs_collected": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["files"],
                    "properties": {"files": {"$ref": "#/definitions/files"}},
                },
                "metrics_collected": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["prometheus"],
                    "properties": {"prometheus": {"$ref": "#/definitions/prometheus"}},
                },
            },
        },
    },
    "definitions": {
        "name": {"type": "string", "minLength": 1, "maxLength": 512},
        "files": {
            "type": "object",
            "additionalProperties": False,
            "required": ["collect_list"],
            "properties": {
                "collect_list": {
                    "type": "array",
                    "minItems": 1,
                    "uniqueItems": True,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["file_path"],
                        "properties": {
                            "file_path": {"type": "string", "maxLength": 4096},
                            "log_group_name": {"$ref": "#/definitions/name"},
                            "log_stream_name": {"$ref": "#/definitions/name"},
                            "timestamp_format": {"type": "string", "minLength": 1},
                            "timezone": {"enum": ["Local", "LOCAL", "UTC"]},
                            "multi_line_start_pattern": {"type": "string", "minLength": 1},
                        },
                    },
                },
            },
        },
        "prometheus": {
            "type": "object",
            "additionalProperties": False,
            "required": ["prometheus_config_path", "emf_processor"],
            "properties": {
                "cluster_name": {"type": "string"},
                "log_group_name": {"type": "string"},
                "prometheus_config_path": {"type": "string"},
                "disable_metric_extraction": {"type": "boolean"},
                "emf_processor": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "metric_declaration_dedup": {"type": "boolean"},
                        "metric_namespace": {"type": "string"},
                        "metric_unit": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
                        "metric_declaration": {"type": "array", "items": {"$ref": "#/definitions/declaration"}},
                    },
                },
            },
        },
        "declaration": {
            "type": "object",
            "additionalProperties": False,
            "required": ["source_labels", "label_matcher", "dimensions", "metric_selectors"],
            "properties": {
                "source_labels": {"type": "array", "items": {"type": "string"}},
                "label_matcher": {"type": "string"},
                "label_separator": {"type": "string"},
                "metric_selectors": {"type": "array", "items": {"type": "string"}},
                "dimensions": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
            },
        },
    },
}


@pytest.fixture
def agent() -> Any:
    return json.loads((_IMAGE / "cloudwatch-agent.json").read_text())


@pytest.fixture
def scrape() -> Any:
    document = yaml.safe_load((_IMAGE / "prometheus.yaml").read_text())
    (job,) = document["scrape_configs"]
    return job


def exposed() -> set[str]:
    """The names of all samples of a worker that has replayed to a destination."""
    ledger = Ledger()
    ledger.destination("http://test.internal")
    reading = Reading(ledger, shards=2, shards_alive=2, generation=1, config_errors=0, receive_buffer=1)
    families = text_string_to_metric_families(exposition(reading).decode())
    return {sample.name for family in families for sample in family.samples}


def test_it_is_of_the_form_that_the_agent_asks_for(agent: Any) -> None:
    Draft4Validator(_SCHEMA).validate(agent)
    agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]["metric_declarations"] = []
    with pytest.raises(ValidationError):
        Draft4Validator(_SCHEMA).validate(agent)


def test_each_metric_of_the_worker_is_selected_or_left_out_for_a_reason(agent: Any) -> None:
    (declaration,) = agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]["metric_declaration"]
    patterns, names = declaration["metric_selectors"], exposed()
    unused = [pattern for pattern in patterns if not any(re.search(pattern, name) for name in names)]
    selected = {name for name in names if any(re.search(pattern, name) for pattern in patterns)}

    assert unused == []
    assert _plain(names - selected) == set(_LEFT_OUT)
    assert not _plain(selected) & set(_LEFT_OUT)


def _plain(names: set[str]) -> set[str]:
    return {re.sub(r"^replayer_|_(total|bucket|count|sum)$", "", name) for name in names}


def test_units_are_of_selected_metrics(agent: Any) -> None:
    processor = agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]
    (declaration,) = processor["metric_declaration"]
    assert {f"^{name}$" for name in processor["metric_unit"]} <= set(declaration["metric_selectors"])


def test_the_stack_is_the_only_dimension_and_a_label_of_what_is_scraped(agent: Any, scrape: Any) -> None:
    processor = agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]
    (declaration,) = processor["metric_declaration"]
    (target,) = scrape["static_configs"]
    assert processor["metric_namespace"] == "VpcTrafficReplay"
    assert declaration["dimensions"] == [["service"]]
    assert target["labels"]["service"] == "@SERVICE@"
    assert declaration["source_labels"] == ["job"]
    assert re.search(declaration["label_matcher"], scrape["job_name"])


def test_what_is_scraped_is_where_the_worker_serves_it(scrape: Any) -> None:
    (target,) = scrape["static_configs"]
    assert target["targets"] == [Settings().admin_address]
    assert scrape["metrics_path"] == "/metrics"


def test_the_log_that_is_shipped_is_the_one_that_the_service_writes(agent: Any) -> None:
    (file,) = agent["logs"]["logs_collected"]["files"]["collect_list"]
    assert f"StandardOutput=append:{file['file_path']}\n" in (_IMAGE / "replayer.service").read_text()
    assert file["file_path"] in (_IMAGE / "logrotate.conf").read_text()
    assert file["log_stream_name"] == "{instance_id}"


def test_placeholders_are_those_that_the_install_script_fills_in() -> None:
    text = "".join(path.read_text() for path in _configuration())
    script = (_IMAGE / "install.sh").read_text()
    assert set(re.findall(r"@[A-Z_]+@", text)) == set(re.findall(r"s\|(@[A-Z_]+@)\|", script))


def _configuration() -> list[Path]:
    return [_IMAGE / "cloudwatch-agent.json", _IMAGE / "prometheus.yaml"]
