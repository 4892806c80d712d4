"""The way to AWS: clients with our timeouts, and calls whose refusals are values that name a code.

Nothing else imports boto3 or botocore. Sessions are botocore's: of boto3 nothing more than its clients would be used,
and it costs a cold start. Profiles, regions, AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_EC2 work as they do for boto3.
"""

import functools
from collections.abc import Iterator
from typing import Any

from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    HTTPClientError,
    InvalidConfigError,
    InvalidRegionError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as ConnectionFailed
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.session import Session

from mirroring import __version__
from mirroring.model import MirroringError, Refused

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 30.0  # a page of 1,000 instances takes seconds
WRITE_TIMEOUT = 10.0  # a run's last write must have ended, and been reported, before the function's time is over
#: A describe that is throttled comes back by itself; a write does not: our own budget decides when to send it again.
READ_ATTEMPTS = 5
WRITE_ATTEMPTS = 1
MOST_PAGES = 10_000  # of one answer: a service that repeats its token must not hold us for ever

UNREACHABLE = "Unreachable"
UNREADABLE = "Unreadable"
ENDLESS = "Endless"

# As the AWS CLI does, and unlike botocore, AWS_REGION counts.
_REGION = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
_NO_REGION = "no AWS region is set: pass --region, or set AWS_REGION, or a region in the profile"
_NO_CREDENTIALS = (
    "no AWS credentials were found: pass --profile, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


class Meter:
    """Counts the requests that clients send, botocore's own retries included."""

    def __init__(self, *clients: Any) -> None:
        self.calls = 0
        for client in dict.fromkeys(clients):
            client.meta.events.register("request-created", self._count)

    def _count(self, **_: Any) -> None:
        self.calls += 1


def client(
    service: str, *, profile: str | None = None, region: str | None = None, attempts: int = READ_ATTEMPTS
) -> Any:
    """A client of an AWS service, or a MirroringError that says what the user must set.

    With WRITE_ATTEMPTS it is one for writes, and does not wait for an answer for longer than WRITE_TIMEOUT.
    """
    session = Session(session_vars=_REGION, profile=profile)
    session.register_component("data_loader", _loader())
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=WRITE_TIMEOUT if attempts == WRITE_ATTEMPTS else READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_extra=f"vpc-traffic-replay/{__version__}",
    )
    try:
        if session.get_credentials() is None:
            raise MirroringError(_NO_CREDENTIALS)
        return session.create_client(service, region_name=region, config=config)
    except BotoCoreError as error:
        raise MirroringError(_remedy(error)) from error
    except ValueError as error:  # botocore's word for an endpoint without a scheme
        raise MirroringError(f"{error}: AWS_ENDPOINT_URL must be a URL such as http://127.0.0.1:5000") from error


def call(client: Any, operation: str, **arguments: Any) -> dict[str, Any]:
    """One call of an API operation by its AWS name; raises Refused with the error's code."""
    try:
        answer: dict[str, Any] = getattr(client, xform_name(operation))(**arguments)
    except ClientError as error:
        details = error.response.get("Error", {})
        raise Refused(operation, str(details.get("Code", "Unknown")), str(details.get("Message", ""))) from error
    except (ConnectionFailed, HTTPClientError) as error:
        raise Refused(operation, UNREACHABLE, str(error)) from error
    except ResponseParserError as error:
        raise Refused(operation, UNREADABLE, str(error)) from error
    except ParamValidationError:
        raise  # our own mistake
    except BotoCoreError as error:
        raise MirroringError(_remedy(error)) from error
    return answer


def pages(client: Any, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """What all pages of an answer hold under `key`. A page that fails raises: half an answer is none."""
    for _ in range(MOST_PAGES):
        answer = call(client, operation, **arguments)
        yield from answer.get(key) or ()
        if token := answer.get("NextToken"):
            arguments["NextToken"] = token
        elif token := answer.get("NextMarker"):  # of elbv2
            arguments["Marker"] = token
        else:
            return
    raise Refused(operation, ENDLESS, f"{MOST_PAGES} pages and no end")


@functools.cache
def _loader() -> Loader:
    """EC2's service model takes 0.15 s to parse; all sessions share it."""
    return create_loader()


def _remedy(error: BotoCoreError) -> str:
    match error:
        case NoRegionError():
            return _NO_REGION
        case NoCredentialsError():
            return _NO_CREDENTIALS
        case ProfileNotFound():
            return f"{error}: `aws configure list-profiles` names those that there are"
        case InvalidRegionError():
            return f"{error}: a region is spelt like eu-west-1"
        case PartialCredentialsError():
            return f"{error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY both, or neither and a profile"
        case SSOError() | NoAuthTokenError() | TokenRetrievalError():
            return f"{error}: sign in again with `aws sso login`"
        case ConfigParseError() | InvalidConfigError():
            return f"{error}: correct the AWS configuration file"
        case _:
            return f"AWS credentials or settings cannot be used: {error}"
