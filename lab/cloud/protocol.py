"""EC2's query protocol from the server's side: requests made plain, answers made XML, by the model that botocore ships.

Requests and answers have the spelling of boto3. Lists are flattened in requests and have `item`s in answers.
Source: https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html
"""

from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

type Form = Mapping[str, str]

_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@cache
def _service() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("ec2", "service-2"))


# Requests


def request(action: str, form: Form) -> dict[str, Any]:
    """The parameters of a call. Members that the action does not have are left out."""
    shape = _service().operation_model(action).input_shape
    return _structure(shape, "", form) if shape else {}


def _structure(shape: Any, prefix: str, form: Form) -> dict[str, Any]:
    found = {}
    for name, member in shape.members.items():
        value = _read(member, f"{prefix}{_query_name(member, name)}", form)
        if value is not None:
            found[name] = value
    return found


def _query_name(member: Shape, name: str) -> str:
    serialization = member.serialization
    if "queryName" in serialization:
        return str(serialization["queryName"])
    spelled = str(serialization.get("name", name))
    return spelled[0].upper() + spelled[1:]


def _read(shape: Any, name: str, form: Form) -> Any:
    """The value under a name; None where the request has none."""
    if shape.type_name == "structure":
        return _structure(shape, f"{name}.", form) or None
    if shape.type_name == "list":
        return _list(shape, name, form) or None
    if name not in form:
        return None
    return _scalar(shape.type_name, form[name])


def _list(shape: Any, name: str, form: Form) -> list[Any]:
    items: list[Any] = []
    while (item := _read(shape.member, f"{name}.{len(items) + 1}", form)) is not None:
        items.append(item)
    return items


def _scalar(kind: str, text: str) -> Any:
    if kind == "boolean":
        return text.lower() == "true"
    if kind in ("integer", "long"):
        return int(text)
    return text


# Answers


def answer(action: str, values: Mapping[str, Any]) -> bytes:
    """The body of an answer. Attributes that the action's answer does not have are left out."""
    root = ElementTree.Element(f"{action}Response", xmlns=_NAMESPACE)
    ElementTree.SubElement(root, "requestId").text = str(uuid4())
    shape = _service().operation_model(action).output_shape
    if shape is not None:
        _members(root, shape, values)
    return _document(root)


def _members(parent: ElementTree.Element, shape: Any, values: Mapping[str, Any]) -> None:
    for name, member in shape.members.items():
        if values.get(name) is not None:
            _write(parent, str(member.serialization.get("name", name)), member, values[name])


def _write(parent: ElementTree.Element, name: str, shape: Any, value: Any) -> None:
    element = ElementTree.SubElement(parent, name)
    if shape.type_name == "structure":
        _members(element, shape, value)
    elif shape.type_name == "list":
        for item in value:
            _write(element, str(shape.member.serialization.get("name", "item")), shape.member, item)
    else:
        element.text = str(value).lower() if isinstance(value, bool) else str(value)


def refusal(code: str, message: str) -> bytes:
    root = ElementTree.Element("Response")
    error = ElementTree.SubElement(ElementTree.SubElement(root, "Errors"), "Error")
    ElementTree.SubElement(error, "Code").text = code
    ElementTree.SubElement(error, "Message").text = message
    ElementTree.SubElement(root, "RequestID").text = str(uuid4())
    return _document(root)


def _document(root: ElementTree.Element) -> bytes:
    body: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return body
