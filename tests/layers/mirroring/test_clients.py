"""Clients as users' settings make them, and calls whose errors are ours."""

import ast
import socket
from contextlib import closing
from pathlib import Path

import pytest
from botocore.exceptions import ParamValidationError
from botocore.session import Session

import mirroring
from mirroring import clients
from mirroring.clients import Meter, call, client, pages
from mirroring.model import MirroringError, Refused
from tests.layers.mirroring.wire import Reply, Wire, as_json, refusal

PACKAGE = Path(mirroring.__file__).parent
EMPTY_PAGE = "<Response><trafficMirrorSessionSet/></Response>"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user with dummy credentials and a region, and nothing from the machine that runs the tests."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text("[profile ireland]\nregion = eu-west-1\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return config


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class TestClient:
    def test_a_client_has_our_timeouts_retries_and_name(self) -> None:
        config = client("ec2").meta.config
        assert config.connect_timeout == clients.CONNECT_TIMEOUT
        assert config.read_timeout == clients.READ_TIMEOUT
        assert config.retries == {"mode": "standard", "total_max_attempts": clients.READ_ATTEMPTS}
        assert f"vpc-traffic-replay/{mirroring.__version__}" in config.user_agent_extra

    def test_a_client_for_writes_tries_once(self) -> None:
        wire = Wire([refusal("RequestLimitExceeded", 503)])
        writer = wire.tap(client("ec2", attempts=clients.WRITE_ATTEMPTS))
        with pytest.raises(Refused) as caught:
            call(writer, "DeleteTrafficMirrorSession", TrafficMirrorSessionId="tms-1")
        assert caught.value.code == "RequestLimitExceeded"
        assert len(wire.asked) == 1

    def test_a_client_for_writes_waits_no_longer_than_a_run_can_spare(self) -> None:
        config = client("ec2", attempts=clients.WRITE_ATTEMPTS).meta.config
        assert (config.connect_timeout, config.read_timeout) == (3, 10)

    def test_a_client_for_reads_tries_again_when_it_is_throttled(self) -> None:
        wire = Wire([refusal("RequestLimitExceeded", 503), Reply(EMPTY_PAGE)])
        reader = wire.tap(client("ec2", attempts=2))
        meter = Meter(reader)
        assert call(reader, "DescribeTrafficMirrorSessions")["TrafficMirrorSessions"] == []
        assert meter.calls == 2

    @pytest.mark.parametrize(
        ("variables", "given", "expected"),
        [
            ({"AWS_DEFAULT_REGION": "us-east-1"}, None, "us-east-1"),
            ({"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-west-2"}, None, "us-west-2"),
            ({"AWS_REGION": "us-west-2"}, "eu-central-1", "eu-central-1"),
        ],
    )
    def test_region(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], given: str | None, expected: str
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert client("ec2", region=given).meta.region_name == expected

    def test_the_profile_gives_the_region(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        assert client("ec2", profile="ireland").meta.region_name == "eu-west-1"

    @pytest.mark.parametrize(
        ("variable", "service", "expected"),
        [
            ("AWS_ENDPOINT_URL", "ssm", "http://127.0.0.1:5999"),
            ("AWS_ENDPOINT_URL_EC2", "ec2", "http://127.0.0.1:5999"),
            ("AWS_ENDPOINT_URL_EC2", "ssm", "https://ssm.us-east-1.amazonaws.com"),
        ],
    )
    def test_endpoints_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, service: str, expected: str
    ) -> None:
        monkeypatch.setenv(variable, "http://127.0.0.1:5999")
        assert client(service).meta.endpoint_url == expected


class TestPlainErrors:
    def test_no_region(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(MirroringError, match="no AWS region is set: pass --region"):
            client("ec2")

    def test_a_region_that_cannot_be_one(self) -> None:
        with pytest.raises(MirroringError, match="a region is spelt like eu-west-1"):
            client("ec2", region="Ireland!")

    def test_no_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(MirroringError, match="no AWS credentials were found: pass --profile"):
            client("ec2")

    def test_half_of_the_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(MirroringError, match="AWS_SECRET_ACCESS_KEY both"):
            client("ec2")

    def test_an_unknown_profile(self) -> None:
        with pytest.raises(MirroringError, match="ghost.*aws configure list-profiles"):
            client("ec2", profile="ghost")

    def test_a_broken_configuration_file(self, settings: Path) -> None:
        settings.write_text("[profile\n")
        with pytest.raises(MirroringError, match="correct the AWS configuration file"):
            client("ec2", profile="ireland")

    def test_an_endpoint_that_is_no_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
        with pytest.raises(MirroringError, match="AWS_ENDPOINT_URL must be a URL"):
            client("ec2")

    def test_a_sign_in_that_has_run_out(self, settings: Path) -> None:
        settings.write_text(
            "[profile sso]\nregion = eu-west-1\nsso_start_url = https://example.com/start\nsso_region = eu-west-1\n"
            "sso_account_id = 123456789012\nsso_role_name = reader\n"
        )
        reader = client("ec2", profile="sso", attempts=1)
        with pytest.raises(MirroringError, match="sign in again with `aws sso login`") as caught:
            call(reader, "DescribeInstances")
        assert not isinstance(caught.value, Refused)

    def test_a_credential_program_that_fails(self, settings: Path) -> None:
        settings.write_text("[profile program]\nregion = eu-west-1\ncredential_process = false\n")
        with pytest.raises(MirroringError, match="AWS credentials or settings cannot be used"):
            client("ec2", profile="program")


class TestCall:
    def test_a_refusal_names_operation_and_code(self) -> None:
        reader = Wire([refusal("UnauthorizedOperation", 403)]).tap(client("ec2", attempts=1))
        with pytest.raises(Refused, match="DescribeInstances: UnauthorizedOperation: no") as caught:
            call(reader, "DescribeInstances")
        assert (caught.value.operation, caught.value.code) == ("DescribeInstances", "UnauthorizedOperation")
        assert caught.value.message == "no"

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(Refused) as caught:
            call(client("ssm", attempts=1), "GetParameter", Name="/x")
        assert caught.value.code == clients.UNREACHABLE

    def test_an_answer_that_is_none(self) -> None:
        reader = Wire([Reply("<html>oops")]).tap(client("ec2", attempts=1))
        with pytest.raises(Refused) as caught:
            call(reader, "DescribeInstances")
        assert caught.value.code == clients.UNREADABLE

    def test_a_client_of_somebody_else_without_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(MirroringError, match="no AWS credentials were found"):
            call(Session().create_client("ec2", region_name="eu-west-1"), "DescribeInstances")

    def test_a_call_that_cannot_be_is_our_own_mistake(self) -> None:
        with pytest.raises(ParamValidationError):
            call(client("ec2"), "DeleteTrafficMirrorSession", Session="tms-1")


class TestPages:
    def test_all_pages_of_ec2(self) -> None:
        first = "<R><trafficMirrorSessionSet><item><sessionNumber>1</sessionNumber></item></trafficMirrorSessionSet>"
        second = "<R><trafficMirrorSessionSet><item><sessionNumber>2</sessionNumber></item></trafficMirrorSessionSet>"
        wire = Wire([Reply(f"{first}<nextToken>more</nextToken></R>"), Reply(f"{second}</R>")])
        reader = wire.tap(client("ec2", attempts=1))
        found = list(pages(reader, "DescribeTrafficMirrorSessions", "TrafficMirrorSessions", MaxResults=1000))
        assert [raw["SessionNumber"] for raw in found] == [1, 2]
        assert "NextToken" not in wire.asked[0] and wire.asked[1]["NextToken"] == "more"
        assert [asked["MaxResults"] for asked in wire.asked] == ["1000", "1000"]

    def test_all_pages_of_elbv2_which_names_them_otherwise(self) -> None:
        listeners = "<Listeners><member><Port>{}</Port></member></Listeners>"
        page = f"<R><DescribeListenersResult>{listeners}{{}}</DescribeListenersResult></R>"
        wire = Wire([Reply(page.format(1, "<NextMarker>more</NextMarker>")), Reply(page.format(2, ""))])
        reader = wire.tap(client("elbv2", attempts=1))
        found = list(pages(reader, "DescribeListeners", "Listeners", LoadBalancerArn="arn:x"))
        assert [raw["Port"] for raw in found] == [1, 2]
        assert wire.asked[1]["Marker"] == "more"

    def test_an_answer_without_the_key_is_empty(self) -> None:
        reader = Wire([as_json({})]).tap(client("ssm", attempts=1))
        assert list(pages(reader, "GetParameterHistory", "Parameters", Name="/x")) == []

    def test_a_page_that_fails_fails_the_whole(self) -> None:
        first = "<R><trafficMirrorSessionSet/><nextToken>more</nextToken></R>"
        reader = Wire([Reply(first), refusal("InternalError", 500)]).tap(client("ec2", attempts=1))
        with pytest.raises(Refused, match="InternalError"):
            list(pages(reader, "DescribeTrafficMirrorSessions", "TrafficMirrorSessions"))

    def test_a_service_that_never_ends_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clients, "MOST_PAGES", 3)
        reader = Wire([as_json({"NextToken": "again"})] * 4).tap(client("ssm", attempts=1))
        with pytest.raises(Refused) as caught:
            list(pages(reader, "GetParameterHistory", "Parameters", Name="/x"))
        assert caught.value.code == clients.ENDLESS


def test_a_meter_counts_each_client_once() -> None:
    wire = Wire([Reply(EMPTY_PAGE)] * 3)
    reader, writer = wire.tap(client("ec2")), wire.tap(client("ec2"))
    meter = Meter(reader, reader, writer)
    for one in (reader, writer, reader):
        call(one, "DescribeTrafficMirrorSessions")
    assert meter.calls == 3


def test_no_other_module_knows_boto() -> None:
    guilty = {path.name for path in PACKAGE.rglob("*.py") if imported(path) & {"boto3", "botocore"}}
    assert guilty == {"clients.py"}


def imported(path: Path) -> set[str]:
    """First names of all that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names
