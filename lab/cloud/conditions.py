"""Conditions of templates in ministack as CloudFormation decides them.

ministack knows Ref, Fn::Select and comparisons there; ours join and split too. `lab.cloud.intrinsics` knows all that
CloudFormation allows in a condition, which may look at parameters and pseudo parameters alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import get_account_id, get_region  # type: ignore[import-not-found]
from ministack.services.cloudformation import (  # type: ignore[import-not-found]
    changesets,
    engine,
    handlers,
    stacks,
)

from lab.cloud import hooks
from lab.cloud.intrinsics import Conditions, Substitution, TemplateError


def strict() -> None:
    hooks.function((engine, changesets, handlers, stacks), "_evaluate_conditions", "template params", _ours)


def _ours(_: Callable[..., Any]) -> Callable[..., Any]:
    return decided


def decided(template: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Every condition of a template by name."""
    given = {name: _value(parameter) for name, parameter in parameters.items()}
    own = {"AWS::Region": get_region(), "AWS::AccountId": get_account_id(), "AWS::Partition": "aws"}

    def look_up(name: str, attribute: str | None) -> Any:
        if attribute is None and name in given:
            return given[name]
        if attribute is None and name in own:
            return own[name]
        raise TemplateError(f"a condition looks at {name}, which is no parameter")

    try:
        conditions = Conditions(
            template.get("Conditions", {}), Substitution(look_up, template.get("Mappings", {}), get_region())
        )
        return {name: conditions.holds(name) for name in conditions.definitions}
    except TemplateError as error:  # the kind that ministack answers with a ValidationError
        raise ValueError(f"Template error: {error}") from error


def _value(parameter: Mapping[str, Any]) -> str | list[str]:
    value, kind = str(parameter["Value"]), str(parameter.get("Type", "String"))
    if kind == "CommaDelimitedList" or kind.startswith(("List<", "AWS::SSM::Parameter::Value<List<")):
        return [part.strip() for part in value.split(",")]
    return value
