"""IAM in the emulator as AWS has it, for the actions that our roles name.

ministack judges a request once: on the first id that it finds in it, or on `*`, and with few condition keys. So a
narrow policy is refused and a loose one passes, and neither tells anything of ours. `teach` makes it ask all that AWS
asks (see `questions`). Whether a statement applies is still ministack's to say, but for the Arn operators: they match
an ARN by its six parts [operators].

    [operators] https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html

What is replaced in ministack, and by what name, is in `teach`.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any
from xml.etree import ElementTree

from lab.cloud import hooks
from lab.cloud.questions import Account, Interface, Question, Request, Tags, asker_of

# What the functions that are replaced take.
_EXTRACT = "service method path headers body query_params region account_id"
_DENY = (
    "service action principal_arn request_id error_code message headers resource_arn explicit_deny resource_policy_arn"
)
_ENFORCE = "access_key_id iam_action service region resource_arn service_context"
_OPERATOR = "actual expected"

#: Of the request being served: what ministack takes its action for, and what is asked about it instead.
_asked: ContextVar[tuple[str, list[Question]] | None] = ContextVar("asked", default=None)
_refused: ContextVar[Question | None] = ContextVar("refused", default=None)


def teach() -> None:
    """Once, in ministack's process, before the first request."""
    actions, evaluator = import_module("ministack.core.iam_actions"), import_module("ministack.core.iam_evaluator")
    seeing = partial(_with_the_request_seen, _Ministack(), actions.extract_iam_action)
    wording = partial(_with_aws_words, actions.identity_denial_message)
    hooks.function(actions, "extract_resource_arn", _EXTRACT, seeing)
    hooks.function(actions, "access_denied_response", _DENY, wording)
    hooks.function(evaluator, "enforce", _ENFORCE, _with_every_question)
    operators = hooks.table(evaluator, "_CONDITION_OPS")
    for operator in ("arnequals", "arnlike", "arnnotequals", "arnnotlike"):
        negated = operator in evaluator._NEGATED_OPS
        by_parts = partial(_by_parts, evaluator.fnmatch_iam_cs, negated)
        hooks.entry(operators, operator, _OPERATOR, by_parts)


def _with_the_request_seen(
    account: Account, action_of: Callable[..., str | None], original: Callable[..., str]
) -> Callable[..., str]:
    """ministack looks for the resource right before it judges, with the whole request at hand."""

    def extract_resource_arn(
        service: str, method: str, path: str, headers: Any, body: bytes, params: Any, region: str, owner: str
    ) -> str:
        resource = original(service, method, path, headers, body, params, region, owner)
        action = action_of(service, method, path, headers, body, params) or ""
        asked: list[Question] = []
        if layer := _layer_version(service, method, path, params):
            arn = layer if layer.startswith("arn:") else f"arn:aws:lambda:{region}:{owner}:layer:{layer}"
            asked = [Question("lambda:GetLayerVersion", arn)]
        elif asker := asker_of(action):
            asked = list(asker(Request(action, _parameters(body, params), resource, region, owner), account))
        _asked.set((action, asked))
        _refused.set(None)
        return resource

    return extract_resource_arn


def _parameters(body: bytes, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """JSON, or a form."""
    if body.lstrip()[:1] == b"{":
        parsed: Mapping[str, Any] = json.loads(body)
        return parsed
    return {name: value[0] if isinstance(value, list) else value for name, value in params.items()}


_LAYER_VERSION = re.compile(r"/2018-10-31/layers/([^/]+)/versions/(\d+)/?")


def _layer_version(service: str, method: str, path: str, params: Mapping[str, Any]) -> str | None:
    """Its ARN, or NAME:NUMBER. ministack takes both calls that get one for ListLayers."""
    if service != "lambda" or method != "GET":
        return None
    if named := _LAYER_VERSION.fullmatch(path):
        return ":".join(named.groups())
    query = _parameters(b"", params)
    return query.get("Arn") if query.get("find") == "LayerVersion" else None


def _with_every_question(original: Callable[..., Any]) -> Callable[..., Any]:
    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        taken_for, asked = _asked.get() or ("", [])
        if iam_action != taken_for or not asked:
            return original(access_key_id, iam_action, service, region, resource_arn, service_context)
        for question in asked:
            context = {**(service_context or {}), **question.keys}
            refusal = original(access_key_id, question.action, service, region, question.resource, context)
            if refusal:
                _refused.set(question)
                return refusal
        return None

    return enforce


def _with_aws_words(words: Callable[[str, str, str, bool], str], original: Callable[..., Any]) -> Callable[..., Any]:
    """A refusal names the action and the resource that were refused: an operator has nothing else to go by."""

    def access_denied_response(
        service: str, action: str, principal_arn: str, request_id: str, *, message: str = "", **rest: Any
    ) -> Any:
        refused = _refused.get()
        if refused and not message and not rest.get("resource_policy_arn"):
            action, rest["resource_arn"] = refused.action, refused.resource
            message = words(action, principal_arn, refused.resource, rest.get("explicit_deny", False))
            if service == "ec2":
                message = f"You are not authorized to perform this operation. {message}"
        return original(service, action, principal_arn, request_id, message=message, **rest)

    return access_denied_response


type _Matches = Callable[[str, str], bool]


def _by_parts(matches: _Matches, negated: bool, original: _Matches) -> _Matches:
    """[operators]"""
    if original("arn:aws:ec2:::vpc/1", "arn:*") is negated:
        raise hooks.StrangeMinistack(f"{original} does not match as it did")

    def arn_like(actual: str, expected: str) -> bool:
        parts, patterns = actual.split(":", 5), expected.split(":", 5)
        return (len(parts) == len(patterns) == 6 and all(map(matches, parts, patterns))) is not negated

    return arn_like


class _Ministack:
    """The account that ministack holds, for the request that is being served."""

    def __init__(self) -> None:
        self._ec2 = import_module("ministack.services.ec2")
        self._stacks = import_module("ministack.services.cloudformation.handlers")

    def tags(self, resource: str) -> Tags:
        """As DescribeTags gives them, wherever they are kept."""
        form = {"Action": ["DescribeTags"], "Filter.1.Name": ["resource-id"], "Filter.1.Value.1": [resource]}
        _, _, body = self._ec2._ACTION_MAP["DescribeTags"](form)
        tags = ElementTree.fromstring(body).iterfind("{*}tagSet/{*}item")
        return {tag.findtext("{*}key", ""): tag.findtext("{*}value", "") for tag in tags}

    def interface(self, name: str) -> Interface | None:
        found = self._ec2._network_interfaces.get(name)
        return Interface(found["VpcId"], found["SubnetId"]) if found else None

    def stack(self, name: str) -> str:
        found = self._stacks._resolve_stack(name)
        arn: str = found["StackId"] if found else "*"
        return arn
