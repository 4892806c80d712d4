"""Where settings come from: files, SSM parameters (of a small server that speaks its protocol), and flags over them."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replayer.configuration import Flags, Source, Unreadable, merge
from replayer.settings import Settings, SettingsError

ONE = "destinations: [{url: http://test.example.com}]\n"
PLAIN = Flags()


def fault(source: Source) -> str:
    with pytest.raises(SettingsError) as raised:
        source.load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Flags over a document


def test_flags_win() -> None:
    document = {"vxlan_port": 1, "http_ports": [1], "caps": {"flows": 1, "body": 2}}
    settings = merge(document, Flags(settings={"vxlan_port": "2"}, caps={"flows": "3"}), "f.yaml")
    assert (settings.vxlan_port, settings.http_ports, settings.caps.flows, settings.caps.body) == (2, (1,), 3, 2)


def test_flags_replace_what_is_wrong_in_the_file() -> None:
    assert merge({"vxlan_port": "x"}, Flags(settings={"vxlan_port": "2"}), "f.yaml").vxlan_port == 2


def test_destination_flags_replace_the_destinations_and_fields_apply_to_all() -> None:
    document = {"destinations": [{"url": "http://a", "percentage": 5, "timeout": 7}, {"url": "http://b"}]}
    settings = merge(document, Flags(destination={"percentage": "50"}), "f.yaml")
    assert [(entry.url, entry.percentage, entry.timeout) for entry in settings.destinations] == [
        ("http://a", 50, 7),
        ("http://b", 50, 10),
    ]
    settings = merge(document, Flags(destinations=("http://c", "http://d"), destination={"percentage": "50"}), "f.yaml")
    assert [(entry.url, entry.percentage, entry.timeout) for entry in settings.destinations] == [
        ("http://c", 50, 10),
        ("http://d", 50, 10),
    ]


@pytest.mark.parametrize(
    ("document", "flags", "error"),
    [
        ({}, Flags(settings={"vxlan_port": "x"}), "--vxlan-port: 'x': write a whole number"),
        ({}, Flags(settings={"http_ports": ["80", "y"]}), "--http-ports: 'y': write a whole number"),
        (
            {},
            Flags(settings={"http_ports": ["y"]}, names={"http_ports": "--port"}),
            "--port: 'y': write a whole number",
        ),
        ({}, Flags(caps={"body": "x"}), "--cap-body: 'x': write a number of bytes, or one with KiB, MiB or GiB"),
        (
            {},
            Flags(destinations=("x",)),
            "--destination: 'x': write an address such as http://test.example.com or https://test.example.com:8443/prefix",
        ),
        (
            {"destinations": [{"url": "http://a"}]},
            Flags(destination={"percentage": "200"}),
            "--percentage: '200': write at most 100",
        ),
        ({"caps": 5}, Flags(caps={"body": "1"}), "f.yaml: caps: 5: write `setting: value` lines under it"),
        ({"shards": 0}, Flags(caps={"body": "1"}), "f.yaml: shards: 0: write auto, or a number from 1 to 256"),
        (
            {"destinations": ["a"]},
            Flags(destination={"percentage": "2"}),
            "f.yaml: destinations[0]: 'a': write `setting: value` lines under it",
        ),
    ],
)
def test_a_fault_names_the_flag_or_the_file(document: dict[str, Any], flags: Flags, error: str) -> None:
    with pytest.raises(SettingsError) as raised:
        merge(document, flags, "f.yaml")
    assert str(raised.value) == error


# Files


def test_a_file_is_read_again_only_if_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(ONE)
    source = Source(str(path))
    assert not source.polled
    assert source.load().vxlan_port == 4789
    first = source.version
    assert source.poll() is None
    path.write_text(ONE + "vxlan_port: 7")
    changed = source.poll()
    assert changed is not None
    assert changed.vxlan_port == 7
    assert source.version != first


def test_a_bad_new_version_is_told_once_and_a_good_one_follows(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(ONE)
    source = Source(str(path))
    source.load()
    path.write_text(ONE + "vxlan_port: x")
    with pytest.raises(SettingsError, match="vxlan_port: 'x': write a whole number"):
        source.poll()
    assert source.poll() is None
    path.write_text(ONE)
    assert isinstance(source.poll(), Settings)


def test_two_bad_versions_with_the_same_fault_are_two(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(ONE)
    source = Source(str(path))
    source.load()
    for comment in ("# one\n", "# two\n"):
        path.write_text(f"{comment}vxlan_port: x")
        with pytest.raises(SettingsError, match="vxlan_port: 'x'") as raised:
            source.poll()
        assert not isinstance(raised.value, Unreadable)
        assert source.poll() is None


@pytest.mark.parametrize("bad", [False, True])
def test_what_comes_back_after_it_could_not_be_read_is_new(tmp_path: Path, bad: bool) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(ONE)
    source = Source(str(path))
    source.load()
    if bad:
        path.write_text("vxlan_port: x")
        with pytest.raises(SettingsError):
            source.poll()
    for _ in range(2):
        path.rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(Unreadable, match="No such file"):
                source.poll()
        (tmp_path / "away").rename(path)
        if bad:
            with pytest.raises(SettingsError, match="vxlan_port: 'x'"):
                source.poll()
        else:
            assert isinstance(source.poll(), Settings)
        assert source.poll() is None


def test_flags_stay_over_every_version(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(ONE)
    source = Source(str(path), Flags(settings={"vxlan_port": "9"}))
    assert source.load().vxlan_port == 9
    path.write_text(ONE + "vxlan_port: 7")
    changed = source.poll()
    assert changed is not None
    assert changed.vxlan_port == 9


def test_flags_alone() -> None:
    source = Source(None, Flags(destinations=("http://a",)))
    assert source.load().destinations[0].url == "http://a"
    assert source.poll() is None


def test_a_destination_is_needed() -> None:
    assert fault(Source(None)) == (
        "command line: destinations: none is named: write `- url: http://...` under it, or say --destination URL"
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.yaml")
    assert fault(Source(missing)) == (
        f"--config {missing}: No such file or directory: name a readable YAML file, or ssm:NAME"
    )
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    assert fault(Source(str(tmp_path / "latin"))) == (
        f"--config {tmp_path / 'latin'}: byte 3 is not UTF-8: name a YAML file"
    )


# SSM


@dataclass
class FakeSsm:
    """What Parameter Store answers to GetParameter, and what it was asked."""

    port: int = 0
    values: dict[str, str] = field(default_factory=dict)
    error: tuple[int, str, str] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSsm]:
    fake = FakeSsm()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["X-Amz-Target"] == "AmazonSSM.GetParameter"
            fake.asked.append(query)
            fake.regions.append(self.headers["Authorization"].split("/")[2])
            if fake.error is not None:
                status, code, message = fake.error
                self.answer(status, {"__type": code, "message": message})
            elif query["Name"] not in fake.values:
                self.answer(400, {"__type": "ParameterNotFound"})
            else:
                value = fake.values[query["Name"]]
                self.answer(200, {"Parameter": {"Name": query["Name"], "Value": value, "Version": 1}})

        def do_PUT(self) -> None:  # the instance's metadata service: a token, and with it the zone
            self.plain("token")

        def do_GET(self) -> None:
            assert self.path == "/latest/meta-data/placement/availability-zone/"
            assert self.headers["X-aws-ec2-metadata-token"] == "token"
            self.plain("eu-north-1b")

        def plain(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.port = server.server_address[1]
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{fake.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_parameter_is_read_decrypted_and_polled(ssm: FakeSsm) -> None:
    ssm.values["/replay/settings"] = ONE
    source = Source("ssm:/replay/settings")
    assert source.polled
    assert source.load().destinations[0].url == "http://test.example.com"
    assert ssm.asked == [{"Name": "/replay/settings", "WithDecryption": True}]
    assert ssm.regions == ["eu-central-1"]
    assert source.poll() is None
    ssm.values["/replay/settings"] = "vxlan_port: x"
    with pytest.raises(SettingsError, match="^ssm:/replay/settings: vxlan_port: 'x'"):
        source.poll()
    ssm.values["/replay/settings"] = ONE + "vxlan_port: 7"
    changed = source.poll()
    assert changed is not None
    assert changed.vxlan_port == 7


def test_a_throttled_look_is_over_with_the_next_good_one(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ssm.values["p"] = ONE
    source = Source("ssm:p")
    source.load()
    ssm.error = (400, "ThrottlingException", "Rate exceeded")
    with pytest.raises(Unreadable, match="ThrottlingException: Rate exceeded: raise poll_interval"):
        source.poll()
    ssm.error = None
    assert isinstance(source.poll(), Settings)
    assert source.poll() is None


def test_aws_region_wins_over_the_default_region(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    ssm.values["p"] = ONE
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    Source("ssm:p").load()
    assert ssm.regions == ["ap-south-1"]


def test_a_missing_parameter(ssm: FakeSsm) -> None:
    assert fault(Source("ssm:/none")) == (
        "--config ssm:/none: ParameterNotFound: no message: create it, or correct the name or the region"
    )


def test_no_permission(ssm: FakeSsm) -> None:
    ssm.error = (
        400,
        "AccessDeniedException",
        "User: arn:aws:sts::1:x is not authorized\n to perform: ssm:GetParameter",
    )
    assert fault(Source("ssm:p")) == (
        "--config ssm:p: AccessDeniedException: User: arn:aws:sts::1:x is not authorized to perform: ssm:GetParameter:"
        " allow ssm:GetParameter on it (and kms:Decrypt for a secure string)"
    )


def test_no_name() -> None:
    assert fault(Source("ssm:")) == "--config ssm:: write the parameter's name, such as ssm:/traffic-replay/settings"


def test_no_region(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert fault(Source("ssm:p")) == (
        "--config ssm:p: You must specify a region.:"
        " check region (AWS_REGION), credentials and the route to the SSM endpoint"
    )


def test_the_region_of_the_instance(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    ssm.values["p"] = ONE
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{ssm.port}/")
    Source("ssm:p").load()
    assert ssm.regions == ["eu-north-1"]


def test_no_credentials(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "Unable to locate credentials: check region" in fault(Source("ssm:p"))


def test_an_unknown_profile(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "The config profile (nobody) could not be found" in fault(Source("ssm:p"))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "no address", "http://[::"])
def test_an_endpoint_out_of_reach(ssm: FakeSsm, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert fault(Source("ssm:p")).startswith("--config ssm:p: ")
