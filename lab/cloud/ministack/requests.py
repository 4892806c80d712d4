"""Calls of EC2 between ministack and what we put in its place: forms made plain, answers and refusals made XML, lists
filtered and cut."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from lab.cloud import protocol
from lab.cloud.faults import ApiError, Parameters
from lab.cloud.listing import MAX_RESULTS, Resource, matching

type Form = Mapping[str, list[str]]
type Response = tuple[int, dict[str, str], bytes]
type Handler = Callable[[Form], Response]  # as ministack's table has them
type Handle = Callable[[Parameters], Mapping[str, Any]]

#: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
STATUS = {"DryRunOperation": 412, "UnauthorizedOperation": 403}

#: Numbers for what lists go by: first come, first listed.
births = count(1)


def answering(action: str, handle: Handle) -> Handler:
    def respond(form: Form) -> Response:
        try:
            answer = handle(parameters_of(action, form))
        except ApiError as error:
            return refusal(error)
        return 200, {"Content-Type": "application/xml"}, protocol.answer(action, answer)

    return respond


def parameters_of(action: str, form: Form) -> dict[str, Any]:
    return protocol.request(action, {name: values[0] for name, values in form.items() if values})


def refusal(error: ApiError) -> Response:
    body = protocol.refusal(error.code, error.message)
    return STATUS.get(error.code, 400), {"Content-Type": "application/xml"}, body


def dry_run(parameters: Parameters) -> None:
    if parameters.get("DryRun"):
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


def known(store: Mapping[str, Any], name: str, code: str) -> Any:
    if name not in store:
        raise ApiError(code, f"The ID '{name}' does not exist")
    return store[name]


def check_listing(parameters: Parameters, ids: list[str], name: str) -> None:
    size = parameters.get("MaxResults")
    if ids and size is not None:
        text = f"The parameter {name} cannot be used with the parameter maxResults"
        raise ApiError("InvalidParameterCombination", text)
    if size is not None and size not in MAX_RESULTS:
        raise ApiError("InvalidParameterValue", f"Value ({size}) for parameter maxResults is invalid.")


def filtered(views: list[Resource], parameters: Parameters, names: Mapping[str, str]) -> list[Resource]:
    """Those that the filters let pass, `tag:…` and `tag-key` among them."""
    wanted = [item["Name"] for item in parameters.get("Filters") or []]
    for key in {name.removeprefix("tag:") for name in wanted if name.startswith("tag:")}:
        names = {**names, f"tag:{key}": f"tag:{key}"}
    for view in views:
        view |= {f"tag:{tag['Key']}": tag["Value"] for tag in view["Tags"]}
    return matching(views, parameters, names)
