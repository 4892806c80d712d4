"""The command line of a second terminal: what it prints, and that what cannot be done is said in a line."""

import shlex
from collections.abc import Callable, Iterator

import pytest

from lab import do
from lab.cloud.emulator import Emulator, emulator


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    """A live emulator."""
    with emulator(auth=False, live=True, pace=10) as running:
        yield running


@pytest.fixture
def refused(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """A command line in, its one line of complaint out."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)

    def run(line: str) -> str:
        try:
            code = do.main(shlex.split(line))
        except SystemExit as end:
            code = int(str(end.code))
        printed = capsys.readouterr()
        assert code == 2
        assert printed.out == ""
        [complaint] = printed.err.splitlines()
        assert complaint.startswith("lab.do: ")
        return str(complaint)

    return run


def test_what_a_deed_tells_is_printed(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)

    assert do.main(["bus", "--lost", "0"]) == 0
    assert capsys.readouterr() == ("events from now on: as they come, once and in order\n", "")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "required"),
        ("dance", "invalid choice: 'dance'"),
        ("launch --number 0", "a whole number from 1 to 20"),
        ("launch --number 21", "a whole number from 1 to 20"),
        ("launch --image windows", "invalid choice: 'windows'"),
        ("launch --image worker", "invalid choice: 'worker'"),
        ("launch --tag Name", "'Name' is no tag: write KEY=VALUE"),
        ("launch --subnet subnet-0123456789abcdef0", "refused: "),
        ("tag Env=a", "which instances? write their ids first"),
        ("tag i-0123456789abcdef0", "which tag? write KEY=VALUE behind"),
        ("tag i-0123456789abcdef0 Env", "'Env' is no tag"),
        ("tag i-0123456789abcdef0 Env=a", "refused: The ID 'i-0123456789abcdef0' does not exist"),
        ("untag i-0123456789abcdef0", "which tag? write its key behind"),
        ("stop", "required: i-…"),
        ("stop i-0123456789abcdef0", "refused: "),
        ("scale nobody 3", "no group 'nobody'; there are: "),
        ("scale web many", "a whole number from 0 to 20"),
        ("bus --lost 1.1", "a share from 0 to 1"),
        ("bus --lost nan", "a number, 0 or more"),
        ("bus --seconds inf", "a number, 0 or more"),
        ("bus --seconds 1e9", "seconds are from 0 to 3600"),
        ("sweep", "there is no enabled rule with a schedule: is the stack deployed?"),
        ("policy /nowhere.yaml", "/nowhere.yaml cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(refused: Callable[[str], str], line: str, complaint: str) -> None:
    assert complaint in refused(line)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (None, "AWS_ENDPOINT_URL is not set"),
        ("https://ec2.eu-west-1.amazonaws.com", "no lab of this machine"),
        ("http://127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_without_a_lab_it_says_so(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, url: str | None, complaint: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL") if url is None else monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    for deed in ("status", "sweep", "events"):
        assert complaint in refused(deed)
