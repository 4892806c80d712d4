"""mirrorctl: its flags, its exit codes, and what it prints where."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mirroring
from lab.cloud.account import Account, strict_aws
from mirroring import cli
from mirroring.cli import main, parse
from mirroring.ec2 import Ec2
from mirroring.policy import load
from tests.layers.mirroring.program import DEFAULT, OWN, STATE, Terminal, mirrorctl

COMMANDS = ("plan", "apply", "status", "explain", "checkup", "policy")


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The one line on standard error of a command line that makes no sense."""
    with pytest.raises(SystemExit) as raised:
        parse(arguments, {})
    out, err = capsys.readouterr()
    assert (raised.value.code, out, err.count("\n")) == (2, "", 1)
    return str(err.strip())


# The command line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse([command, "--help"], {})
    assert raised.value.code == 0
    assert f"mirrorctl {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--version"], {})
    assert capsys.readouterr().out == f"mirrorctl {mirroring.__version__}\n"


def examples() -> list[str]:
    """Of the help of all commands, without what a shell does with them."""
    texts = [text for text in vars(cli).values() if isinstance(text, str) and "examples:\n" in text]
    lines = re.findall(r"^  (mirrorctl .*)$", "\n".join(texts), re.MULTILINE)
    return [re.split(r" (?:\||\|\||>) ", line)[0] for line in lines]


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_the_help_are_understood(example: str) -> None:
    _, *arguments = shlex.split(example)
    options = parse(arguments, {})
    keys = getattr(options, "autotag_keys", "")
    rule = {"name": "one", "match": {"names": ["*"]}, "tags": dict.fromkeys(filter(None, keys.split(",")), "x")}
    load(json.dumps({"version": 1, "autotag": [rule] if keys else []}))  # keys that a rule may name


def test_all_commands_have_examples() -> None:
    assert len(examples()) > len(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["plam"], "invalid choice: 'plam'"),
        (["plan", "--chek"], "did you mean --check?"),
        (["plan", "--zzz"], "unrecognized arguments: --zzz (see"),
        (["plan", "--policy", "a", "--parameter", "b"], "not allowed with argument --policy"),
        (["plan", "--rows", "-1"], "write a whole number, 0 or more"),
        (["apply", "--max-deletes", "many"], "'many': write a whole number"),
        (["plan", "--stack", "/"], "write the stack's name"),
        (["explain"], "required: INSTANCE"),
        (["policy"], "required: COMMAND"),
        (["policy", "validate", "--tier", "Small"], "invalid choice: 'Small'"),
    ],
)
def test_errors_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, arguments)
    assert line.startswith("mirrorctl: ")
    assert said in line


def test_the_stack_comes_from_flag_environment_or_the_default() -> None:
    assert parse(["plan"], {}).stack == "vpc-traffic-replay"
    assert parse(["plan"], {"MIRROR_STACK": "payments"}).stack == "payments"
    assert parse(["plan", "--stack", "/shop/"], {"MIRROR_STACK": "payments"}).stack == "shop"
    assert parse(["plan"], {"WORKER_GROUPS": "a,b"}).worker_groups == "a,b"


def test_help_needs_neither_botocore_nor_rich() -> None:
    code = "import sys, mirroring.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'botocore', 'rich', 'pydantic'} & sys.modules.keys()), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_without_credentials_or_region_one_line_says_so(tmp_path: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    for more, said in (
        ({}, "no AWS credentials were found"),
        ({"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}, "no AWS region is set"),
    ):
        program = [sys.executable, "-c", "import sys; from mirroring.cli import main; sys.exit(main(['plan']))"]
        done = subprocess.run(program, env={**bare, **more}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"mirrorctl: {said}")
        assert done.stderr.count("\n") == 1


def write(folder: Path, text: str) -> str:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


OLD = """\
vpcs:
  - vpcId: vpc-0123456789abcdef0
    targetId: tmt-0123456789abcdef0
    filterId: tmf-0123456789abcdef0
"""


# Changing


@dataclass(frozen=True)
class Small:
    """Three web servers that are to be mirrored."""

    account: Account
    web: list[str]

    def sessions(self) -> list[Any]:
        found: list[Any] = self.account.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        return found


@pytest.fixture
def small() -> Iterator[Small]:
    with strict_aws() as account:
        account.vpc()
        web = account.launch(8, tags={"mirror": "yes"})
        tags = {"mirror:stack": "vpc-traffic-replay"}
        target, rules = account.nlb_target(tags=tags), account.filter(tags=tags)
        source = f"{{name: web, match: {{tags: {{mirror: '*'}}}}, target: {target}, filter: {rules}}}"
        account.put_policy(f"version: 1\nlimits: {{deletes: 3}}\nsources: [{source}]\n", DEFAULT)
        account.ssm.put_parameter(Name=STATE, Value="running", Type="String")
        yield Small(account, web)


def test_apply_asks_and_no_changes_nothing(small: Small) -> None:
    done = mirrorctl("apply", answer="")
    assert done.code == 1
    assert "8 to create" in done.out
    assert done.err == "mirrorctl: nothing was changed\n"
    assert small.sessions() == []


def test_apply_asks_and_yes_applies(small: Small) -> None:
    done = mirrorctl("apply", answer=" Y \n")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("Created 8, changed 0, deleted 0, failed 0.\n")
    assert len(small.sessions()) == 8
    again = mirrorctl("apply", answer="no")  # nobody is asked where nothing is to be done
    assert (again.code, again.out) == (0, "Nothing to do: 8 sessions wanted, 8 there, 8 stay as they are.\n")


def test_apply_where_nobody_can_answer(small: Small) -> None:
    done = mirrorctl("apply")
    assert (done.code, done.out) == (2, "")
    assert "pass --yes" in done.err
    assert mirrorctl("apply", "--json", answer="y").code == 2
    assert small.sessions() == []


def test_apply_as_json(small: Small) -> None:
    done = mirrorctl("apply", "--yes", "--json")
    assert done.code == 0
    assert len(done.json["created"]) == 8
    assert done.json["planned"]["desired"] == 8
    again = mirrorctl("apply", "--yes", "--json").json
    assert again["created"] == []


def test_a_guard_holds_deletes_back_until_a_number_is_named(small: Small) -> None:
    assert mirrorctl("apply", "--yes").code == 0
    small.account.untag(small.web[:6], ["mirror"])
    held = mirrorctl("apply", "--yes")
    assert held.code == 1
    assert "6 deletes are held back" in held.out
    assert "`mirrorctl apply --max-deletes 6` does it once" in " ".join(held.out.split())
    planned = mirrorctl("plan", "--check")
    assert planned.code == 3
    assert planned.out.startswith("held back ")
    assert planned.out.count("\ndelete ") == planned.out.count("no source matches the instance: web (") == 6
    assert "0 to delete, 6 held back: 2 sessions wanted, 8 there, 8 stay as they are." in planned.out
    assert ["web", "2", "8", "0", "0", "0", "6"] in [line.split() for line in mirrorctl("status").out.splitlines()]
    assert len(small.sessions()) == 8
    assert mirrorctl("apply", "--yes", "--max-deletes", "5").code == 1
    assert len(small.sessions()) == 8
    done = mirrorctl("apply", "--yes", "--max-deletes", "6")
    assert (done.code, done.err) == (0, "")
    assert "deleted 6" in done.out
    assert len(small.sessions()) == 2


def test_no_number_opens_the_guard_that_closes_where_no_instance_is_listed(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mirrorctl("apply", "--yes").code == 0
    monkeypatch.setattr(Ec2, "marked", lambda *_: {})
    held = mirrorctl("apply", "--yes", "--max-deletes", "100", minutes=10)
    assert held.code == 1
    assert "EC2 listed no instance at all" in held.out
    assert held.err == ""
    assert len(small.sessions()) == 8


def test_a_paused_stack_is_planned_and_not_changed(small: Small) -> None:
    small.account.ssm.put_parameter(Name=STATE, Value="paused", Type="String", Overwrite=True)
    done = mirrorctl("apply", "--yes")
    assert done.code == 1
    assert "8 to create" in done.out
    assert f"mirrorctl: nothing was changed: the parameter {STATE} says `paused`" in done.err
    assert mirrorctl("apply", "--yes", "--json").code == 1
    assert "Paused: " in mirrorctl("explain", small.web[0]).out
    assert small.sessions() == []


def test_a_pause_in_the_middle_ends_an_apply(small: Small) -> None:
    def pause(parameters: Any) -> bool:
        if parameters.get("DryRun"):
            return False
        small.account.ssm.put_parameter(Name=STATE, Value="paused", Type="String", Overwrite=True)
        return False

    small.account.put_policy(policy_of(small).replace("deletes: 3", "deletes: 3, writes_per_second: 0.2"), DEFAULT)
    small.account.model.fail("CreateTrafficMirrorSession", "InternalError", when=pause)
    done = mirrorctl("apply", "--yes")
    assert done.code == 1
    assert "it was paused meanwhile" in done.err
    assert 0 < len(small.sessions()) < 8


def policy_of(small: Small) -> str:
    return str(small.account.ssm.get_parameter(Name=DEFAULT)["Parameter"]["Value"])


def test_what_fails_is_named_and_the_rest_is_done(small: Small) -> None:
    [old] = small.account.launch(type="t2.micro", tags={"mirror": "yes"})
    done = mirrorctl("apply", "--yes")
    assert done.code == 1
    assert "Created 8, changed 0, deleted 0, failed 1." in done.out
    assert small.account.interfaces(old)[0] in done.out
    assert "NetworkInterfaceNotSupported" in done.out


def test_missing_permission_ends_an_apply_early(small: Small) -> None:
    allowed = 1

    def not_a_dry_run(parameters: Any) -> bool:
        return not parameters.get("DryRun")

    small.account.model.fail(
        "CreateTrafficMirrorSession", "UnauthorizedOperation", times=99, after=allowed, when=not_a_dry_run
    )
    done = mirrorctl("apply", "--yes")
    assert done.code == 1
    assert "mirrorctl: ended early: " in done.err
    assert "still to be looked at: run it again" in done.err
    assert len(small.sessions()) == allowed


def test_progress_is_told_now_and_then(small: Small) -> None:
    small.account.put_policy(policy_of(small).replace("deletes: 3", "writes_per_second: 0.2"), DEFAULT)
    done = mirrorctl("apply", "--yes")
    assert done.code == 0
    assert "changes done" in done.err


def test_a_terminal_shows_a_bar(small: Small) -> None:
    err = Terminal()
    assert mirrorctl("apply", "--yes", err=err).code == 0
    assert "applying" in err.getvalue()


def test_an_interrupt_tells_how_far_it_came(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(parameters: Any) -> bool:
        if parameters.get("DryRun"):
            return False
        raise KeyboardInterrupt

    small.account.model.fail("CreateTrafficMirrorSession", "InternalError", when=interrupt)
    assert main(["apply", "--yes"]) == 130
    assert capsys.readouterr().err == ("mirrorctl: interrupted after 0 changes; `mirrorctl plan` shows what is left\n")


def test_an_invalid_newer_policy_is_told_and_the_older_one_used(small: Small) -> None:
    small.account.put_policy("sorces: []\n", DEFAULT)
    assert f"a policy is refused, an older one is in force: {DEFAULT}:2" in mirrorctl("plan").err
    assert f"{DEFAULT} version 2 is refused" in mirrorctl("policy", "show").err
    told = mirrorctl("status").out.splitlines()[:2]
    assert told[0] == f"Policy: {DEFAULT} version 1"
    assert told[1].startswith(f"Refused: {DEFAULT} version 2: line 1: sorces")
    [refused] = mirrorctl("status", "--json").json["refused"]
    assert refused.startswith(f"{DEFAULT}:2: line 1: sorces")
    assert mirrorctl("policy", "validate").code == 1
    small.account.put_policy(policy_of(small), OWN)
    assert mirrorctl("policy", "show", "--json").json["refused"]


def test_an_interface_target_has_no_listener_to_look_at(small: Small) -> None:
    target = small.account.eni_target(tags={"mirror:stack": "vpc-traffic-replay"})
    line = next(line for line in policy_of(small).split() if line.startswith("tmt-"))
    small.account.put_policy(policy_of(small).replace(line, f"{target},"), OWN)
    done = mirrorctl("checkup")
    assert done.code == 1  # the default security group lets nothing in
    assert "drops UDP 4789" in done.out


# The program itself


def test_the_endpoint_of_the_environment_is_honoured(small: Small) -> None:
    """AWS_ENDPOINT_URL_EC2 wins for EC2; both lead to nothing that listens."""
    for name, operation in (("AWS_ENDPOINT_URL", "DescribeAutoScalingGroups"), ("AWS_ENDPOINT_URL_EC2", "Describe")):
        program = "import sys; from mirroring.cli import main; sys.exit(main(['plan', *sys.argv[1:]]))"
        more = () if name == "AWS_ENDPOINT_URL" else ("--worker-groups", "none", "--policy", os.devnull)
        done = subprocess.run(
            [sys.executable, "-c", program, *more],
            env={**os.environ, name: "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert operation in done.stderr
        assert "127.0.0.1:9" in done.stderr


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    path = write(tmp_path, OLD)
    program = f"import sys; from mirroring.cli import main; sys.exit(main({['policy', 'import', path]!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, check=False, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_letter_that_the_terminal_has_not_got_is_no_error(tmp_path: Path) -> None:
    old = (
        "tags: [{tagList: [{Key: Env, Value: prés}], targetId: tmt-0123456789abcdef0, filterId: tmf-0123456789abcdef0}]"
    )
    program = [sys.executable, "-c", "import sys; from mirroring.cli import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run(
        [*program, "policy", "import", write(tmp_path, old)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"pr?s" in done.stdout


def test_main_reads_the_answer_from_standard_input(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert main(["apply"]) == 1
    assert capsys.readouterr().err == "Apply? [y/N] mirrorctl: nothing was changed\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["apply"]) == 2
