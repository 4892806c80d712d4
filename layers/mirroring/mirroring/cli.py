"""The program `mirrorctl`: its commands and flags, and errors in one line."""

import argparse
import difflib
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from mirroring import __version__
from mirroring.environment import DEFAULT_OWNER
from mirroring.model import MirroringError

if TYPE_CHECKING:
    from mirroring.desk import Outside

_UNUSABLE, _INTERRUPTED = 2, 130
_ROWS = 100  # of changes or findings in a table

_ABOUT = """\
Keeps VPC Traffic Mirroring sessions equal to a policy.

examples:
  mirrorctl policy validate --policy policy.yaml
  mirrorctl plan
  mirrorctl explain i-0123456789abcdef0
  mirrorctl checkup
"""

_VALIDATE = """\
examples:
  mirrorctl policy validate --policy policy.yaml
  mirrorctl policy validate --policy policy.yaml --offline --autotag-keys env,team
  mirrorctl policy validate --parameter /vpc-traffic-replay/policy

Looks at syntax, at a file's size, whether the targets and filters that it names exist and bear the stack's tag, whether
its VPCs exist, how many interfaces each source selects, and, by dry runs, whether these credentials may mirror them.

exit codes: 0 valid, 1 something that it names cannot be used, or it is too large,
2 not a valid policy, or AWS out of reach
"""

_SHOW = """\
examples:
  mirrorctl policy show
  mirrorctl policy show --stack payments-mirror --json | jq .policy.limits

exit codes: 0, 2 there is no valid policy, or AWS out of reach
"""

_IMPORT = """\
examples:
  mirrorctl policy import source-automation.yaml > policy.yaml
  mirrorctl policy import source-automation.yaml --target tmt-0123456789abcdef0 --filter tmf-0123456789abcdef0

Reads the configuration of AWS's aws-vpc-traffic-mirroring-source-automation and prints a policy.

exit codes: 0, 2 a file that is no such configuration
"""

_PLAN = """\
examples:
  mirrorctl plan
  mirrorctl plan --policy policy.yaml
  mirrorctl plan --check || echo "changes are pending"
  mirrorctl plan --json | jq '.create[].session.interface'

Nothing is changed.

exit codes: 0, with --check 3 when changes are pending, 2 no valid policy, or AWS out of reach
"""

_APPLY = """\
examples:
  mirrorctl apply
  mirrorctl apply --yes --max-deletes 250

Shows the plan, asks, then looks and plans again and does what is to be done then. --max-deletes answers a guard that
holds deletes back: for this run limits.deletes is that number, and limits.delete_fraction does not count. Where EC2
lists no instance at all, nothing is deleted whatever the number.

exit codes: 0 all done, 1 declined, paused, held back by a guard, or something failed,
2 no valid policy, or AWS out of reach
"""

_STATUS = """\
examples:
  mirrorctl status
  mirrorctl status --json | jq '.targets[] | select(.health != "healthy")'

exit codes: 0, 2 no valid policy, or AWS out of reach
"""

_EXPLAIN = """\
examples:
  mirrorctl explain i-0123456789abcdef0
  mirrorctl explain i-0123456789abcdef0 --policy policy.yaml

exit codes: 0, 2 no such instance, no valid policy, or AWS out of reach
"""

_CHECKUP = """\
examples:
  mirrorctl checkup
  mirrorctl checkup --json | jq '.answers[] | select(.outcome == "failed")'

Looks at the stack's parameters, the policy's references, filters and targets, listeners, cross-zone load balancing,
stickiness, security groups, routes, instance types and, by dry runs, permissions. Network ACLs are not looked at.

exit codes: 0 nothing is wrong, 1 something is, or may not be looked at, 2 AWS out of reach
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_UNUSABLE, f"mirrorctl: {message}{self._near(message)} (see `{self.prog} --help`)\n")

    def _near(self, message: str) -> str:
        _, _, unknown = message.partition("unrecognized arguments: ")
        known = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown.split(" ")[0].split("=")[0], known, n=1)
        return f": did you mean {near[0]}?" if near else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code. Errors are on standard error."""
    try:
        options = parse(arguments, os.environ)
        from mirroring.desk import Outside  # --help needs neither rich nor botocore

        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that cannot show a letter shows ? instead
        ask = _ask if sys.stdin is not None and sys.stdin.isatty() else None
        outside = Outside(sys.stdout, sys.stderr, os.environ, lambda: datetime.now(UTC), time.sleep, ask)
        return run(options, outside)
    except KeyboardInterrupt:
        return _INTERRUPTED


def parse(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> argparse.Namespace:
    """The options, `command` among them. Ends the program after --help, and with code 2 where they make no sense."""
    options, unknown = _parser(environment).parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def run(options: argparse.Namespace, outside: "Outside") -> int:
    """One command; the exit code."""
    from mirroring import commands, policy_commands

    try:
        code = int(getattr(policy_commands if options.about_policy else commands, options.command)(options, outside))
        outside.out.flush()
        return code
    except MirroringError as error:
        print(f"mirrorctl: {error}", file=outside.err)
        return _UNUSABLE
    except BrokenPipeError:  # `mirrorctl plan --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        return 0


def _ask(question: str) -> str:
    """On standard error, so that standard output holds results alone. An end of input is no yes."""
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _make(_Parser, prog="mirrorctl", description=_ABOUT)
    commands = _commands(parser)
    policy = _make(commands.add_parser, name="policy", help="check, show or convert a policy")
    policy.set_defaults(parser=policy)
    policies = _commands(policy)

    def command(among: Any, name: str, function: str, text: str, epilog: str) -> argparse.ArgumentParser:
        made = _make(among.add_parser, name=name, help=text, description=_sentence(text), epilog=epilog)
        made.set_defaults(command=function, about_policy=among is policies, parser=made)
        return made

    def of_account(among: Any, *arguments: str) -> argparse.ArgumentParser:
        made = command(among, *arguments)
        _add_account(made, environment)
        return made

    text = "tell whether a policy is valid, and what it names usable"
    validate = of_account(policies, "validate", "validate", text, _VALIDATE)
    validate.add_argument("--offline", action="store_true", help="look at the file alone, ask AWS nothing")
    tiers = ("Standard", "Advanced")
    validate.add_argument("--tier", choices=tiers, help="of the parameter that is to hold it (default: any)")
    of_account(policies, "show", "show", "print the policy in force", _SHOW)
    text = "convert a configuration of AWS's source-automation sample"
    old = command(policies, "import", "import_", text, _IMPORT)
    old.add_argument("old", metavar="OLD.yaml")
    old.add_argument("--target", metavar="tmt-ID", help="in the place of all targets that it names")
    old.add_argument("--filter", metavar="tmf-ID", help="in the place of all filters that it names")

    plan = of_account(commands, "plan", "plan", "show what would be created, changed and deleted, and why", _PLAN)
    plan.add_argument("--check", action="store_true", help="exit code 3 when changes are pending")
    _add_rows(plan)
    apply = of_account(commands, "apply", "apply", "make the sessions what the policy wants", _APPLY)
    apply.add_argument("--yes", action="store_true", help="do not ask")
    text = "for this run, let up to so many deletes through the guards"
    apply.add_argument("--max-deletes", metavar="N", type=_whole, help=text)
    _add_rows(apply)
    _add_rows(of_account(commands, "status", "status", "show sessions, targets, findings and cost", _STATUS))
    text = "tell why an instance is mirrored, or is not"
    one = of_account(commands, "explain", "explain_instance", text, _EXPLAIN)
    one.add_argument("instance", metavar="INSTANCE", help="its id")
    of_account(commands, "checkup", "check_up", "look for what keeps packets from arriving", _CHECKUP)
    return parser


def _commands(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)


def _make(make: Callable[..., Any], **options: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = make(formatter_class=_formatter, allow_abbrev=False, **options)
    parser.add_argument("--version", action="version", version=f"mirrorctl {__version__}")
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=110)


def _add_account(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """What says which policy, and which account."""
    group = parser.add_argument_group("policy")
    policy = group.add_mutually_exclusive_group()
    policy.add_argument("--policy", metavar="FILE", help="a file")
    policy.add_argument("--parameter", metavar="NAME", help="an SSM parameter")
    stack = environment.get("MIRROR_STACK") or DEFAULT_OWNER
    text = f"the stack: sessions are its own, and its policy is /NAME/policy, else /NAME/policy-default ({stack})"
    group.add_argument("--stack", metavar="NAME", type=_stack, default=stack, help=text)
    group.add_argument(
        "--worker-groups",
        metavar="A,B",
        default=environment.get("WORKER_GROUPS", ""),
        help="Auto Scaling groups of the worker fleet, never mirrored (those that the stack made)",
    )
    group.add_argument(
        "--autotag-keys",
        metavar="A,B",
        default=environment.get("AUTOTAG_KEYS", ""),
        help="tag keys that the stack lets autotag put on (unless named, they are not checked)",
    )
    group = parser.add_argument_group("account", "AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_EC2 are honoured.")
    group.add_argument("--profile", metavar="NAME", help="of the AWS configuration")
    group.add_argument("--region", metavar="NAME", help="AWS Region")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", metavar="N", type=_whole, default=_ROWS, help=f"rows of a table; 0 = all ({_ROWS})")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number, 0 or more")
    return int(text)


def _stack(text: str) -> str:
    name = text.strip("/")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r}: write the stack's name")
    return name


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
