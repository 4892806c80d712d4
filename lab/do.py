"""Deeds for a second terminal, while `make demo KEEP=1` stands.

python -m lab.do launch --tag TrafficReplay=production
python -m lab.do bus --lost 0.5
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from lab import deeds
from lab.cloud.endpoint import Endpoint, RefusedError
from lab.deeds import DeedError
from lab.images import IMAGES

#: Instances that one command launches at most.
MOST_INSTANCES = 20
#: Images that run something, or nothing, by themselves; a worker's says nothing without the stack's user data.
LAUNCHED = tuple(sorted(IMAGES.keys() - {"worker"}))

_STACK = "replay"
_UNUSABLE, _INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_UNUSABLE, f"lab.do: {message} (see `{self.prog} --help`)\n")


def _tag(text: str) -> tuple[str, str]:
    try:
        return deeds.pair(text)
    except DeedError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _share(text: str) -> float:
    number = _number(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a share from 0 to 1")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: write a number, 0 or more")
    return number


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from {least} to {most}")
        return int(text)

    return whole


def parser() -> argparse.ArgumentParser:
    made = _Parser(prog="python -m lab.do", description=(__doc__ or "").splitlines()[0])
    commands = made.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(deed: Callable[[Endpoint, argparse.Namespace], Iterator[str]], text: str) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = commands.add_parser(deed.__name__, help=text, description=text)
        one.set_defaults(deed=deed)
        return one

    one = command(deeds.launch, "launch instances of an image of the lab")
    one.add_argument("--number", type=_whole(1, MOST_INSTANCES), default=1)
    one.add_argument("--image", choices=LAUNCHED, default="web")
    one.add_argument("--tag", type=_tag, action="append", default=[], metavar="KEY=VALUE")
    one.add_argument("--subnet", metavar="ID", default="", help="default: that of production's youngest instance")
    command(deeds.tag, "tag instances").add_argument("words", nargs="+", metavar="i-…|KEY=VALUE")
    command(deeds.untag, "take tags from instances").add_argument("words", nargs="+", metavar="i-…|KEY")
    for deed in (deeds.stop, deeds.start, deeds.terminate):
        command(deed, f"{deed.__name__} instances").add_argument("instances", nargs="+", metavar="i-…")
    one = command(deeds.scale, "set how many instances an Auto Scaling group has")
    one.add_argument("group")
    one.add_argument("number", type=_whole(0, MOST_INSTANCES))
    one = command(deeds.policy, "put a policy of your own in force")
    one.add_argument("file")
    one.add_argument("--stack", default=_STACK)
    command(deeds.sweep, "let the schedule strike now, which finds what events did not tell")
    one = command(deeds.bus, "say what becomes of events from now on; without flags they come once and in order")
    for name, what in (("late", "come --seconds later"), ("doubled", "come twice"), ("shuffled", "are overtaken")):
        one.add_argument(f"--{name}", type=_share, default=0.0, help=f"share of the events that {what}, 0 to 1")
    one.add_argument("--lost", type=_share, default=0.0, help="share of the events that do not come, 0 to 1")
    one.add_argument("--seconds", type=_number, default=0.0)
    one.add_argument("--seed", type=_whole(0, 1 << 31), default=1)
    one = command(deeds.events, "list the events so far (very old ones are forgotten), and what became of each")
    one.add_argument("--after", type=_whole(0, 1 << 31), default=0, metavar="NUMBER")
    command(deeds.status, "list the instances, and the mirror sessions of their interfaces")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; errors are on standard error."""
    options = parser().parse_args(arguments)
    try:
        for line in options.deed(deeds.reach(os.environ), options):
            print(line)
    except (DeedError, BotoCoreError) as error:
        print(f"lab.do: {error}", file=sys.stderr)
    except ClientError as error:
        print(f"lab.do: refused: {error.response['Error']['Message']}", file=sys.stderr)
    except RefusedError as error:
        print(f"lab.do: refused: {error}", file=sys.stderr)
    except (OSError, HTTPException) as error:
        print(f"lab.do: {os.environ['AWS_ENDPOINT_URL']} does not answer: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return _INTERRUPTED
    else:
        return 0
    return _UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
