"""A template as CloudFormation would deploy it, for tests that look where no emulator does.

    stack = Stack.read(ROOT / "template.yaml").with_parameters(HandlerVpcId="vpc-0a", HandlerSubnetIds="subnet-0a")

    stack.resources["ReconcileQueue"].properties["VisibilityTimeout"]     every value decided and put in
    stack.resources["ReconcileQueue"].type
    stack.resources["WorkerGroup"].attributes["UpdatePolicy"]             beside Type and Properties: the rest
    stack.of_type("AWS::Events::Rule")                                    resources by logical id
    stack.ref("WorkerLayer"), stack.attribute("ReconcileQueue", "Arn")    what Ref and GetAtt give
    stack.needs("MirrorSessions")                                         what must exist first, and goes after it
    stack.outputs["TrafficMirrorTarget"]
    stack.parameters["ForwardPercentage"]                                 defaults included, lists as lists

SAM expands the template (lab.cloud.expand), lab.cloud.intrinsics evaluates it, lab.cloud.names gives physical ids.
Resources whose condition is false are not there. A parameter that CloudFormation would refuse, a rule that is broken, a
reference to what is not there and a function that is not known raise TemplateError. `Fn::Base64` gives the plain text.
A layer version may be asked for by its id in the template, though SAM appends ten digits of a hash. SAM is run once for
each set of values.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from lab.cloud.intrinsics import Conditions, Node, Substitution, TemplateError, references, settle
from lab.cloud.names import NAMED_BY, Physical

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/tools/sam/bin/python"
EXPAND = ROOT / "lab/cloud/expand.py"

PSEUDO: Mapping[str, Any] = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::StackName": "replay",
    "AWS::StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/replay/00000000-0000-0000-0000-000000000000",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NotificationARNs": [],
}
NOT_ATTRIBUTES = {"Type", "Properties", "Condition", "DependsOn"}
ALWAYS = {"Fn::Equals": ["", ""]}
LAYER = "AWS::Lambda::LayerVersion"


@dataclass(frozen=True)
class Resource:
    id: str
    type: str
    properties: Mapping[str, Any]
    #: What stands beside Type and Properties: UpdatePolicy, CreationPolicy, DeletionPolicy, Metadata.
    attributes: Mapping[str, Any]
    #: Ids of what it refers to or names in DependsOn.
    needs: frozenset[str]


@cache
def expanded(path: Path, text: str, values: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    """`text`, which `path` holds, as SAM expands it; a template without the transform is only read."""
    done = subprocess.run(
        [PYTHON, EXPAND, path], input=json.dumps(dict(values)), capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise TemplateError(f"{path.name}: {done.stderr.strip()}")
    template: Mapping[str, Any] = json.loads(done.stdout)
    return template


@dataclass(frozen=True)
class Stack:
    path: Path
    values: Mapping[str, str] = field(default_factory=dict)
    pseudo: Mapping[str, Any] = field(default_factory=lambda: PSEUDO)

    @classmethod
    def read(cls, path: Path) -> "Stack":
        return cls(path)

    def with_parameters(self, **values: str) -> "Stack":
        """The same with these beside, or in the place of, those given before."""
        return replace(self, values={**self.values, **values})

    def with_pseudo(self, **values: str) -> "Stack":
        """StackName="other", Region="us-east-1" …"""
        return replace(self, pseudo={**self.pseudo, **{f"AWS::{name}": value for name, value in values.items()}})

    @cached_property
    def template(self) -> Mapping[str, Any]:
        """As SAM expands it for these values: functions and conditions are still in it."""
        return expanded(self.path, self.path.read_text(), tuple(sorted(self.values.items())))

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        definitions = self.template.get("Parameters", {})
        if unknown := self.values.keys() - definitions.keys():
            raise TemplateError(f"no such parameters: {', '.join(sorted(unknown))}")
        return {name: parameter(name, rule, self.values.get(name)) for name, rule in definitions.items()}

    @cached_property
    def resources(self) -> Mapping[str, Resource]:
        for name, rule in self.template.get("Rules", {}).items():
            self._keep(name, rule)
        return {name: self._resource(name, body) for name, body in self._settled.items()}

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        wanted = self._present(self.template.get("Outputs", {}))
        return {name: self._substitution.of(settle(body["Value"], self._conditions)) for name, body in wanted.items()}

    def of_type(self, kind: str) -> Mapping[str, Resource]:
        return {name: resource for name, resource in self.resources.items() if resource.type == kind}

    def ref(self, name: str) -> Any:
        return self._look_up(name, None)

    def attribute(self, name: str, attribute: str) -> Any:
        return self._look_up(name, attribute)

    def needs(self, name: str) -> frozenset[str]:
        """Everything that CloudFormation makes before `name`, and deletes after it."""
        found: set[str] = set()
        waiting = [self._id(name)]
        while waiting:
            new = self.resources[waiting.pop()].needs - found
            found |= new
            waiting.extend(new)
        return frozenset(found)

    def holds(self, condition: str) -> bool:
        return self._conditions.holds(condition)

    @cached_property
    def _conditions(self) -> Conditions:
        return Conditions(self.template.get("Conditions", {}), replace(self._substitution, look_up=self._value))

    @cached_property
    def _substitution(self) -> Substitution:
        return Substitution(self._look_up, self.template.get("Mappings", {}), self.pseudo["AWS::Region"])

    @cached_property
    def _settled(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            name: settle(body, self._conditions) for name, body in self._present(self.template["Resources"]).items()
        }

    def _keep(self, name: str, rule: Mapping[str, Any]) -> None:
        if not self._conditions.decide(rule.get("RuleCondition", ALWAYS)):
            return
        for assertion in rule["Assertions"]:
            if not self._conditions.decide(assertion["Assert"]):
                raise TemplateError(f"rule {name}: {assertion.get('AssertDescription', assertion['Assert'])}")

    def _present(self, section: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: body for name, body in section.items() if self._wanted(body)}

    def _wanted(self, body: Mapping[str, Any]) -> bool:
        return "Condition" not in body or self._conditions.holds(body["Condition"])

    def _resource(self, name: str, body: Mapping[str, Any]) -> Resource:
        return Resource(
            id=name,
            type=body["Type"],
            properties=self._substitution.of(body.get("Properties", {})),
            attributes={key: self._substitution.of(value) for key, value in body.items() if key not in NOT_ATTRIBUTES},
            needs=frozenset(self._neighbours(name, body)),
        )

    def _neighbours(self, name: str, body: Mapping[str, Any]) -> Iterator[str]:
        named = body.get("DependsOn", [])
        yield from (other for other in references(body.get("Properties", {})) if other in self._settled)
        for other in [named] if isinstance(named, str) else named:
            if other not in self.template["Resources"]:
                raise TemplateError(f"{name} depends on {other}, which is not in the template")
            if other in self._settled:  # one that its condition leaves out is waited for by nobody
                yield other

    def _value(self, name: str, attribute: str | None) -> Any:
        """Of parameters alone: conditions may look at nothing else."""
        if attribute is None and name in self.parameters:
            return self.parameters[name]
        if attribute is None and name in self.pseudo:
            return self.pseudo[name]
        raise TemplateError(f"no parameter {name}")

    def _look_up(self, name: str, attribute: str | None) -> Any:
        if attribute is None and (name in self.parameters or name in self.pseudo):
            return self._value(name, None)
        physical = self._physical(self._id(name))
        return physical.reference if attribute is None else physical.attribute(attribute)

    def _physical(self, name: str) -> Physical:
        body = self._settled[name]
        given = body.get("Properties", {}).get(NAMED_BY.get(body["Type"], ""))
        pseudo = {key.removeprefix("AWS::"): value for key, value in self.pseudo.items()}
        return Physical(body["Type"], name, None if given is None else self._substitution.of(given), pseudo)

    def _id(self, name: str) -> str:
        if name in self._settled:
            return name
        hashed = re.compile(rf"{re.escape(name)}[0-9a-f]{{10}}")
        for other, body in self._settled.items():
            if body["Type"] == LAYER and hashed.fullmatch(other):
                return other
        raise TemplateError(f"nothing here is called {name}")


def parameter(name: str, rule: Mapping[str, Any], given: str | None) -> Node:
    """A parameter's value, checked as CloudFormation checks it."""
    default = rule.get("Default")
    value = given if given is not None else None if default is None else _text(default)
    if value is None:
        raise TemplateError(f"parameter {name} needs a value")
    kind = rule["Type"]
    listed = kind.startswith("List<") or kind == "CommaDelimitedList"
    values = [item.strip() for item in value.split(",")] if listed else [value]
    for item in values:
        _check(name, rule, item)
    if kind.startswith("AWS::SSM::Parameter::Value"):
        return f"{{{{resolve:ssm:{value}}}}}"
    return values if listed else value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(name: str, rule: Mapping[str, Any], value: str) -> None:
    allowed = rule.get("AllowedValues")
    if allowed is not None and value not in [_text(item) for item in allowed]:
        raise TemplateError(f"parameter {name}: {value!r} is none of {allowed}")
    pattern = rule.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(pattern, value, re.ASCII):  # as Java reads \w, \d and \s
        raise TemplateError(f"parameter {name}: {value!r} does not match {pattern}")
    if not int(rule.get("MinLength", 0)) <= len(value) <= int(rule.get("MaxLength", len(value))):
        raise TemplateError(f"parameter {name}: {value!r} is too short or too long")
    if rule["Type"] in ("Number", "List<Number>"):
        _check_number(name, rule, value)


def _check_number(name: str, rule: Mapping[str, Any], value: str) -> None:
    try:
        number = float(value)
    except ValueError:
        raise TemplateError(f"parameter {name}: {value!r} is no number") from None
    if not float(rule.get("MinValue", number)) <= number <= float(rule.get("MaxValue", number)):
        raise TemplateError(f"parameter {name}: {value} is out of bounds")
