"""What is wrong with an `aws` command: asked of botocore's service models, which the AWS CLI makes its commands of.

Service, operation and flags must exist, required ones be there, values be of their kind, and a --query be JMESPath.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import jmespath  # type: ignore[import-untyped]
from botocore import xform_name
from botocore.model import OperationModel, Shape
from botocore.session import get_session

#: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-options.html
GLOBAL = frozenset("--ca-bundle --color --endpoint-url --output --profile --query --region".split())
GLOBAL_SWITCHES = frozenset("--debug --no-cli-pager --no-paginate --no-sign-request".split())
#: https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-skeleton.html and cli-usage-pagination.html
OF_EVERY_OPERATION = frozenset("--cli-input-json --generate-cli-skeleton".split())
PAGING = frozenset("--max-items --page-size --starting-token".split())
#: What the AWS CLI adds to the services' operations: (service, command) → flags with and without a value.
ADDED = {
    ("cloudformation", "deploy"): (
        "--template-file --stack-name --parameter-overrides --capabilities --tags --s3-bucket --role-arn".split(),
        ["--no-fail-on-empty-changeset", "--no-execute-changeset"],
    ),
    ("logs", "tail"): ("--since --format --filter-pattern --log-stream-names".split(), ["--follow"]),
    ("s3", "cp"): ([], ["--recursive"]),
    ("s3", "ls"): ([], ["--recursive"]),
    ("s3", "rm"): ([], ["--recursive"]),
    ("s3", "mb"): ([], []),
}


def faults(arguments: Sequence[str]) -> list[str]:
    """What is wrong with what follows `aws`; nothing if it is well formed."""
    flags, rest = _flags(arguments)
    query = flags.get("--query")
    found = _query(query) if query else []
    rest_flags = {flag: value for flag, value in flags.items() if flag not in GLOBAL | GLOBAL_SWITCHES}
    if len(rest) < 2:
        return [*found, "no service and operation"]
    service, operation, *positional = rest
    if (service, operation) in ADDED:
        return found + _added(ADDED[service, operation], rest_flags)
    session = get_session()
    if service not in session.get_available_services():
        return [*found, f"botocore knows no service {service}"]
    model = session.get_service_model(service)
    if operation == "wait":
        waiters = {xform_name(name, "-"): name for name in session.get_waiter_model(service).waiter_names}
        if not positional or positional[0] not in waiters:
            return [*found, f"{service} has no such waiter"]
        waited = session.get_waiter_model(service).get_waiter(waiters[positional.pop(0)])
        operation = xform_name(waited.operation, "-")
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in operations:
        return [*found, f"{service} has no operation {operation}"]
    described = model.operation_model(operations[operation])
    output = int(described.has_streaming_output)  # goes into a file that is named last
    if len(positional) != output:
        found.append(f"{positional}: expected {output} words without a flag")
    return found + _operation(described, rest_flags, session.get_paginator_model(service))


def _flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Flags with their values, and the words before the first of them or beside them."""
    flags: dict[str, str] = {}
    rest: list[str] = []
    at = ""
    for word in arguments:
        if word.startswith("--"):
            at, _, value = word.partition("=")
            flags[at] = value
            at = "" if value or at in GLOBAL_SWITCHES else at
        elif at and (not flags[at] or at not in GLOBAL):
            flags[at] = f"{flags[at]} {word}".strip()
        else:
            rest.append(word)
    return flags, rest


def _query(query: str) -> list[str]:
    try:
        jmespath.compile(query)
    except jmespath.exceptions.JMESPathError as error:
        return [f"--query: {error}"]
    return []


def _added(allowed: tuple[list[str], list[str]], flags: dict[str, str]) -> list[str]:
    valued, switches = allowed
    return [f"no flag {flag}" for flag in flags if flag not in (*valued, *switches)] + [
        f"{flag} wants a value" for flag in flags if flag in valued and not flags[flag]
    ]


def _operation(operation: OperationModel, flags: dict[str, str], pages: Any) -> list[str]:
    members: dict[str, Shape] = dict(operation.input_shape.members) if operation.input_shape else {}
    needed = set(operation.input_shape.required_members) if operation.input_shape else set()
    required = {name for name in needed if not members[name].metadata.get("idempotencyToken")}  # the CLI makes one up
    names = {f"--{xform_name(name, '-')}": name for name in members}
    allowed = set(names) | OF_EVERY_OPERATION
    allowed |= {f"--no-{flag[2:]}" for flag, name in names.items() if members[name].type_name == "boolean"}
    with contextlib.suppress(ValueError):  # no pages
        pages.get_paginator(operation.name)
        allowed |= PAGING
    found = [f"{operation.name} has no {flag}" for flag in flags if flag not in allowed]
    found += [
        f"{flag} is missing"
        for flag, name in names.items()
        if name in required and not {flag, f"--no-{flag[2:]}"} & flags.keys()
    ]
    for flag, value in flags.items():
        shape = members.get(names.get(flag, ""))
        if shape is not None:
            found += _value(flag, value, shape)
    return found


def _value(flag: str, value: str, shape: Shape) -> list[str]:
    if shape.type_name == "boolean":
        return [f"{flag} takes no value"] if value else []
    if not value:
        return [f"{flag} wants a value"]
    if "$" in value or "SUBSTITUTED" in value:
        return []
    one = shape.member if shape.type_name == "list" else shape
    values = value.split() if shape.type_name == "list" else [value]
    choices = one.metadata.get("enum")
    if choices:
        return [f"{flag}: {word} is none of {choices}" for word in values if word not in choices]
    if shape.type_name in ("integer", "long") and not value.lstrip("-").isdecimal():
        return [f"{flag}: {value} is no number"]
    return []
