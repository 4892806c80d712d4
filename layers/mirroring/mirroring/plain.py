"""Values of the control plane as JSON can hold them, for `--json`."""

from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from mirroring.diagnosis import Answer, wrong
from mirroring.report import Report


def plain(value: Any) -> Any:
    """Dataclasses as objects, sets as sorted lists, and what JSON has no word for as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, Set):
        return sorted(plain(held) for held in value)
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if isinstance(value, datetime | Decimal):
        return str(value)
    return value


def of_plan(report: Report) -> dict[str, Any]:
    """What would be done. The findings are the report's: a check of references finds more than the plan knows."""
    plan = report.plan
    return {
        "policy": report.policy.removesuffix(":0"),  # a file has no version
        "refused": list(report.refused),
        "paused": report.why_paused,
        "desired": plan.desired,
        "actual": plan.actual,
        "kept": plan.kept,
        "create": plain(plan.create),
        "modify": plain(plan.modify),
        "delete": plain(plan.delete),
        "held_back": plain(plan.held),
        "findings": plain(report.findings),
    }


def of_run(report: Report) -> dict[str, Any]:
    """What was planned, and what became of it."""
    return {
        "planned": of_plan(report),
        "created": plain(report.created),
        "modified": plain(report.modified),
        "deleted": plain(report.deleted),
        "failed": plain(report.failed),
        "unfinished": plain(report.unfinished),
        "paused": report.paused,
        "stopped": report.stopped,
    }


def of_answers(answers: list[Answer]) -> dict[str, Any]:
    return {"ok": not wrong(answers), "answers": plain(answers)}
