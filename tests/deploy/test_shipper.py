"""The CloudWatch agent's configuration: of the form that the agent asks for, and about metrics that the worker has.

Every selected metric costs money (one custom metric each, for the one dimension set), so each metric of the worker is
either selected or left out for a reason; the reasons stand here.
"""

import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator, ValidationError  # type: ignore[import-untyped]

from mirroring.telemetry import NAMESPACE
from replayer import LOG_FORMAT
from replayer.settings import Settings
from tests.deploy.shipped import IMAGE, agent, declaration, exposed, processor, shipped

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
def scrape() -> Any:
    (job,) = yaml.safe_load((IMAGE / "prometheus.yaml").read_text())["scrape_configs"]
    return job


def test_it_is_of_the_form_that_the_agent_asks_for() -> None:
    content = agent()
    Draft4Validator(_SCHEMA).validate(content)
    content["logs"]["metrics_collected"]["prometheus"]["emf_processor"]["metric_declarations"] = []
    with pytest.raises(ValidationError):
        Draft4Validator(_SCHEMA).validate(content)


def test_each_metric_of_the_worker_is_selected_or_left_out_for_a_reason() -> None:
    selected = shipped()
    patterns = declaration()["metric_selectors"]
    assert [pattern for pattern in patterns if not any(re.search(pattern, name) for name in selected)] == []
    assert _plain(exposed() - selected) == set(_LEFT_OUT)
    assert not _plain(selected) & set(_LEFT_OUT)


def _plain(names: set[str]) -> set[str]:
    return {re.sub(r"^replayer_|_(total|bucket|count|sum)$", "", name) for name in names}


def test_units_are_of_selected_metrics() -> None:
    assert {f"^{name}$" for name in processor()["metric_unit"]} <= set(declaration()["metric_selectors"])


def test_the_stack_is_the_only_dimension_and_a_label_of_what_is_scraped(scrape: Any) -> None:
    """And both halves of the stack write into one namespace."""
    (target,) = scrape["static_configs"]
    assert processor()["metric_namespace"] == NAMESPACE
    assert declaration()["dimensions"] == [["service"]]
    assert target["labels"]["service"] == "@SERVICE@"  # the stack's name: see test_userdata
    assert declaration()["source_labels"] == ["job"]
    assert re.search(declaration()["label_matcher"], scrape["job_name"])


def test_what_is_scraped_is_where_the_worker_serves_it(scrape: Any) -> None:
    (target,) = scrape["static_configs"]
    assert target["targets"] == [Settings().admin_address]
    assert scrape["metrics_path"] == "/metrics"


def test_the_log_that_is_shipped_is_the_one_that_the_service_writes() -> None:
    (file,) = agent()["logs"]["logs_collected"]["files"]["collect_list"]
    assert f"StandardOutput=append:{file['file_path']}\n" in (IMAGE / "replayer.service").read_text()
    assert file["file_path"] in (IMAGE / "logrotate.conf").read_text()
    assert file["log_stream_name"] == "{instance_id}"
    assert agent()["agent"]["run_as_user"] == "cwagent"  # whose group may read it: see test_install


def test_an_event_begins_with_each_line_that_begins_with_a_time() -> None:
    """Of a traceback only the first line does. The worker's clock is UTC: see test_unit."""
    (file,) = agent()["logs"]["logs_collected"]["files"]["collect_list"]
    line = logging.Formatter(LOG_FORMAT).format(logging.makeLogRecord({"created": 0.0}))
    datetime.strptime(line[:19], file["timestamp_format"]).replace(tzinfo=UTC)
    assert file["timezone"] == "UTC"
    assert file["multi_line_start_pattern"] == "{timestamp_format}"


def test_the_agent_finds_what_to_scrape_and_does_so_each_minute() -> None:
    """Alarms count on a number in each of their periods."""
    place = agent()["logs"]["metrics_collected"]["prometheus"]["prometheus_config_path"]
    install = (IMAGE / "install.sh").read_text()
    (folder,) = re.findall(r"SETTINGS_DIR=(\S+)", install)
    assert place == f"{folder}/prometheus.yaml"
    assert " $SETTINGS_DIR/prometheus.yaml\n" in install
    assert yaml.safe_load((IMAGE / "prometheus.yaml").read_text())["global"]["scrape_interval"] == "1m"


def test_bytes_are_shown_as_bytes() -> None:
    assert processor()["metric_unit"] == {
        re.sub(r"\W", "", pattern): "Bytes" for pattern in declaration()["metric_selectors"] if "bytes" in pattern
    }


def test_logrotate_keeps_the_file_that_systemd_holds_open_and_the_disk_free() -> None:
    """Moved away, the log would be written on where nobody looks, until the disk is full."""
    text = (IMAGE / "logrotate.conf").read_text()
    words = dict(re.findall(r"^ +(\w+) *(\S*)$", text, re.MULTILINE))
    assert {"copytruncate", "compress", "missingok"} <= words.keys()
    assert not {"create", "nocopytruncate"} & words.keys()
    assert re.fullmatch(r"\d{1,2}M", words["maxsize"])
    assert 1 <= int(words["rotate"]) <= 10


def test_placeholders_are_those_that_the_install_script_fills_in() -> None:
    text = "".join(path.read_text() for path in _configuration())
    script = (IMAGE / "install.sh").read_text()
    assert set(re.findall(r"@[A-Z_]+@", text)) == set(re.findall(r"s\|(@[A-Z_]+@)\|", script))


def _configuration() -> list[Path]:
    return [IMAGE / "cloudwatch-agent.json", IMAGE / "prometheus.yaml"]
