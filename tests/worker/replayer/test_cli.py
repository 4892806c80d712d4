"""The command line: flags from the settings, help, and errors in one line."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import replayer
from replayer.cli import main
from replayer.configuration import Source
from replayer.settings import FIXED, Caps, Destination, Settings

CAPTURES = Path(__file__).parents[2] / "captures"
COMMANDS = ("run", "extract", "replay", "check")


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """What `run` was called with; in the place of the supervisor."""
    given: list[Source] = []

    def run(source: Source) -> int:
        given.append(source)
        return 0

    monkeypatch.setattr("replayer.supervisor.run", run)
    return given


def loaded(sources: list[Source], *arguments: str) -> Settings:
    """The settings that `replayer run` with these arguments has."""
    assert main(["run", *arguments]) == 0
    return sources[-1].load()


def fails(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The one line on standard error of a command that ends with exit code 2."""
    try:
        code: object = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("replayer: ")
    assert err.count("\n") == 1
    return err.strip()


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 0
    return capsys.readouterr().out


# Help and version


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse_and_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    text = shown(capsys, command, "--help")
    assert "exit codes: 0" in text
    assert max(map(len, text.splitlines())) <= 120
    monkeypatch.setattr(f"replayer.cli._{command}", lambda options: 0)
    examples = re.findall(rf"^  replayer ({command} [^|>\n]*)", text, re.MULTILINE)
    assert examples
    for example in examples:
        assert main(example.split()) == 0


def test_help_of_the_program_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    assert all(re.search(rf"^    {command} ", text, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)])
def test_version(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert shown(capsys, *arguments, "--version") == f"replayer {replayer.__version__}\n"


@pytest.mark.parametrize("command", ["run", "check"])
def test_every_setting_is_a_flag_with_its_description(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = " ".join(shown(capsys, command, "--help").split())
    for model, prefix in ((Settings, "--"), (Caps, "--cap-"), (Destination, "--")):
        for name, field in model.model_fields.items():
            if name not in ("caps", "destinations", "url"):
                assert f"{prefix}{name.replace('_', '-')}" in text
                assert " ".join((field.description or "?").split()) in text


def test_help_tells_defaults_in_human_units(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, "run", "--help").split())
    assert "bytes of a request body (default 10MiB)" in text
    assert "--tls-verify, --no-tls-verify verify the certificate of an https destination (default yes)" in text
    assert "HTTP ports; an empty list = any port (default 80)" in text


# Flags of `run` and `check`


def test_flags_alone(sources: list[Source]) -> None:
    settings = loaded(
        sources,
        *("--destination", "http://a", "--destination", "http://b", "--percentage", "12.5", "--methods", "GET,HEAD"),
        *("--drop-headers", "Cookie", "--drop-headers", "X-A, X-B", "--keep-host-header", "--no-tls-verify"),
        *("--vxlan-port", "4790", "--geneve-port", "6081", "--vnis", "1,2", "--vnis", "3", "--shards", "2"),
        *("--http-ports", "any", "--cap-body", "128MiB", "--cap-hole-timeout", "0.5", "--receive-buffer", "1GiB"),
        *("--health-address", "127.0.0.1:0", "--percentage-by", "header", "--percentage-by-header", "X-User"),
    )
    assert settings == Settings(
        vxlan_port=4790,
        geneve_port=6081,
        vnis=(1, 2, 3),
        shards=2,
        http_ports=(),
        receive_buffer=1 << 30,
        health_address="127.0.0.1:0",
        caps=Caps(body=128 << 20, hole_timeout=0.5),
        destinations=tuple(
            Destination(
                url=url,
                percentage=12.5,
                percentage_by="header",
                percentage_by_header="X-User",
                methods=("GET", "HEAD"),
                drop_headers=("Cookie", "X-A", "X-B"),
                keep_host_header=True,
                tls_verify=False,
            )
            for url in ("http://a", "http://b")
        ),
    )


def test_no_flags_give_the_defaults(sources: list[Source]) -> None:
    assert loaded(sources, "--destination", "http://a") == Settings(destinations=(Destination(url="http://a"),))


def test_flags_win_over_the_file(sources: list[Source], tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("""
        vxlan_port: 1
        geneve_port: 6081
        vnis: [5]
        caps: {flows: 9, body: 8}
        destinations: [{url: http://a, methods: [GET], keep_host_header: true, percentage_by: remoteaddr}]
    """)
    settings = loaded(
        sources,
        *("--config", str(path), "--vxlan-port", "2", "--geneve-port", "none", "--vnis", "all", "--cap-body", "7"),
        *("--methods", "all", "--no-keep-host-header", "--percentage-by", "none"),
    )
    assert (settings.vxlan_port, settings.geneve_port, settings.vnis) == (2, None, ())
    assert settings.caps == Caps(flows=9, body=7)
    assert settings.destinations == (Destination(url="http://a"),)


def test_the_word_that_empties_a_list_is_the_one_for_what_that_means(sources: list[Source], tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("destinations: [{url: http://a, methods: [GET], drop_headers: [Cookie]}]")
    empty = loaded(sources, "--config", str(path), "--methods", "all", "--drop-headers", "none", "--http-ports", "any")
    assert (empty.destinations[0].methods, empty.destinations[0].drop_headers, empty.http_ports) == ((), (), ())
    named = loaded(sources, "--config", str(path), "--methods", "none", "--drop-headers", "all")
    assert (named.destinations[0].methods, named.destinations[0].drop_headers) == (("none",), ("all",))


def test_help_tells_what_a_running_worker_cannot_change(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, "run", "--help").split())
    _, _, rest = text.partition("A running worker cannot change ")
    assert all(name in rest.partition(":")[0] for name in FIXED)


def test_the_exit_code_is_the_supervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replayer.supervisor.run", lambda source: 7)
    assert main(["run", "--destination", "http://a"]) == 7


# Errors


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["check"],
            "replayer: command line: destinations: none is named: write `- url: http://...` under it,"
            " or say --destination URL",
        ),
        (
            ["check", "--destination", "http://a", "--shards", "x"],
            "replayer: --shards: 'x': write auto, or a number from 1 to 256",
        ),
        (["check", "--destination", "http://a", "--vnis", "1,x"], "replayer: --vnis: 'x': write a whole number"),
        (["check", "--destination", "http://a", "--vnis", "none"], "replayer: --vnis: 'none': write a whole number"),
        (
            ["check", "--destination", "http://a", "--methods", "get"],
            "replayer: --methods: 'get': methods are case-sensitive: write GET",
        ),
        (["check", "--destination", "http://a", "--percentage", "x"], "replayer: --percentage: 'x': write a number"),
        (
            ["check", "--config", "none.yaml"],
            "replayer: --config none.yaml: No such file or directory: name a readable YAML file, or ssm:NAME",
        ),
        (["check", "--vxlan-prot", "1"], "replayer: unrecognized arguments: --vxlan-prot 1"),
        (["run", "--vxlan", "1"], "replayer: unrecognized arguments: --vxlan 1"),
        (["run", "--vxlan-port"], "replayer: argument --vxlan-port: expected one argument (see `replayer run --help`)"),
        ([], "replayer: the following arguments are required: COMMAND (see `replayer --help`)"),
        (
            ["runn"],
            "replayer: argument COMMAND: invalid choice: 'runn' (choose from 'run', 'extract', 'replay', 'check')",
        ),
        (["extract"], "replayer: the following arguments are required: FILE (see `replayer extract --help`)"),
        (["extract", "a.pcap", "--port", "x"], "replayer: --port: 'x': write a whole number"),
        (
            ["extract", "none.pcap"],
            "replayer: none.pcap: No such file or directory: name a pcap or pcapng file, also gzipped",
        ),
        (["extract", __file__], f"replayer: {__file__}: this is no pcap or pcapng file"),
        (["replay", "a.pcap"], "replayer: the following arguments are required: --to (see `replayer replay --help`)"),
        (
            ["replay", "a.pcap", "--to", "a"],
            "replayer: --to: 'a': write an address such as http://test.example.com or https://test.example.com:8443/prefix",
        ),
        (
            ["replay", "a.pcap", "--to", "http://a", "--speed", "0"],
            "replayer: argument --speed: '0': write a number above 0, or max (see `replayer replay --help`)",
        ),
        (
            ["replay", "a.pcap", "--to", "http://a", "--speed", "inf"],
            "replayer: argument --speed: 'inf': write a number above 0",
        ),
        (
            ["replay", "a.pcap", "--to", "http://a", "--speed", "nan"],
            "replayer: argument --speed: 'nan': write a number above 0",
        ),
    ],
)
def test_errors_are_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(capsys, arguments).startswith(error)


def test_a_mistyped_flag_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --vxlan-port?" in fails(capsys, ["extract", "a.pcap", "--vxlan-prot=1"])
    assert "did you mean --speed?" in fails(capsys, ["replay", "a.pcap", "--to", "http://a", "--sped", "max"])


# The program itself


def program(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(replayer.__file__).parents[1])}
    command = [sys.executable, "-m", "replayer", *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environment)


def test_the_module_runs() -> None:
    process = program("extract", str(CAPTURES / "mirrored.pcap.gz"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.count(b"\n") == 6
    assert err.endswith(b"balanced: nothing is unaccounted for\n")


def test_a_reader_that_stops_reading_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = program("extract", str(CAPTURES / "mirrored.pcap.gz"), "--body", stdout=write_end)
    os.close(write_end)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
