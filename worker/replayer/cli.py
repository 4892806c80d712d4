"""The program `replayer`: its commands, and their flags made from the settings' own descriptions."""

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Literal, NoReturn, TypeAliasType, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from replayer import __version__, settings
from replayer.capture import CaptureError
from replayer.configuration import Flags, Source, merge
from replayer.settings import Caps, Destination, Settings, SettingsError

_RECEIVING = ("listen", "vxlan_port", "geneve_port", "vnis", "http_ports", "shards", "receive_buffer")
_SELECTING = ("client_address", "selection_key", "mark_header")
_RUNNING = ("health_address", "admin_address", "drain_timeout", "poll_interval")
_CAPS = ("flows", "head", "body", "held_total", "hole_timeout")
_QUEUE = ("queue", "queue_timeout")  # a capture waits for the destination
_GENEVE_PORT = "6081"  # on for captures: a file holds what it holds
_READING = (
    (
        "--port",
        "http_ports",
        "production's HTTP port; repeat for several; any = HTTP is recognised by content (default 80)",
    ),
    ("--vni", "vnis", "mirrored frames of this VNI only; repeat for several"),
    ("--vxlan-port", "vxlan_port", ""),
    ("--geneve-port", "geneve_port", f"UDP port of GENEVE; none = off (default {_GENEVE_PORT})"),
)
_OFFLINE = {name: flag for flag, name, _ in _READING}
#: What empties a list: the word for what an empty one means.
_EMPTY = {
    "settings.vnis": ("all",),
    "settings.http_ports": ("any", "all"),
    "destination.methods": ("all",),
    "destination.drop_headers": ("none",),
}

_METAVARS: Mapping[object, str] = {
    settings.Port: "PORT",
    settings.Size: "BYTES",
    settings.Seconds: "SECONDS",
    settings.Token: "NAME",
    settings.Method: "NAME",
    settings.Ip: "IP",
    settings.Address: "ADDRESS:PORT",
    settings.Shards: "NUMBER",
    settings.Vni: "VNI",
    int: "NUMBER",
    float: "NUMBER",
    str: "TEXT",
}

_ABOUT = """\
Replays mirrored production requests to a test environment.

examples:
  replayer run --destination http://test.internal
  replayer check --config settings.yaml
  replayer extract capture.pcap | jq .target
  replayer replay capture.pcap --to http://127.0.0.1:8000 --speed max
"""

_RUN = f"""\
examples:
  replayer run --destination http://test.internal
  replayer run --destination http://test.internal --percentage 12.5 --methods GET,HEAD --drop-headers Cookie
  replayer run --config settings.yaml --shards 2
  replayer run --config ssm:/traffic-replay/settings

SIGHUP has the file read again, an SSM parameter is looked at every --poll-interval: what changed takes effect at once.
A running worker cannot change {", ".join(settings.FIXED[:-1])}
or {settings.FIXED[-1]}: such a version is refused as a whole, restart the worker for it.

exit codes: 0 after SIGTERM or SIGINT, 1 a crash loop, 2 settings that cannot be used
"""

_CHECK = """\
examples:
  replayer check --config settings.yaml
  replayer check --destination https://test.internal --no-tls-verify

exit codes: 0 ready to run, 2 something stands in the way
"""

_EXTRACT = """\
examples:
  replayer extract capture.pcapng > requests.jsonl
  replayer extract capture.pcap.gz --port 80 --port 8080 --vni 77 | jq -r '.method + " " + .target'
  replayer extract part1.pcap part2.pcap --port any --body

One object a line: ts, vni, src, src_port, dst, dst_port, method, target, version, headers, body_length, body_sha256.
Several files are merged by time. The accounting goes to standard error.

exit codes: 0, 2 a file that is no capture, 3 a damaged or cut file (what was readable has come out)
"""

_REPLAY = """\
examples:
  replayer replay capture.pcap --to http://127.0.0.1:8000
  replayer replay capture.pcap --to https://test.internal --speed 2 --methods GET,HEAD
  replayer replay capture.pcapng.gz --to http://127.0.0.1:8000 --speed max

exit codes: 0 all selected requests were replayed, 1 some failed or were dropped, 2 a file that is no capture or
a destination out of reach, 3 a damaged or cut file (what was readable has been replayed)
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"replayer: {message}{self._near(message)} (see `{self.prog} --help`)\n")

    def _near(self, message: str) -> str:
        _, _, unknown = message.partition("unrecognized arguments: ")
        known = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown.split(" ")[0].split("=")[0], known, n=1)
        return f": did you mean {near[0]}?" if near else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code. Errors are one line on standard error."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return int(options.command(options))
    except (SettingsError, CaptureError) as error:
        print(f"replayer: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `replayer extract ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        return 0
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    from replayer import supervisor  # the commands import what only they need

    return supervisor.run(Source(options.config, _flags(options)))


def _check(options: argparse.Namespace) -> int:
    from replayer.check import check

    return check(Source(options.config, _flags(options)).load(), sys.stdout)


def _extract(options: argparse.Namespace) -> int:
    from replayer.extract import extract

    chosen = merge({}, _flags(options), "extract")
    return extract(options.files, chosen, sys.stdout, sys.stderr, with_body=options.with_body)


def _replay(options: argparse.Namespace) -> int:
    from replayer.offline import replay

    options.destinations = [options.to]
    return replay(options.files, merge({}, _flags(options), "replay"), options.speed, sys.stderr)


def _flags(options: argparse.Namespace) -> Flags:
    """The flags that were given, by what they set: a flag's `dest` is its place, such as `caps.flows`."""
    found: dict[str, dict[str, Any]] = {"settings": {}, "caps": {}, "destination": {}}
    for place, value in vars(options).items():
        model, dot, name = place.partition(".")
        if dot:
            found[model][name] = _values(value, _EMPTY[place]) if isinstance(value, list) else value
    names = getattr(options, "names", {})
    return Flags(**found, destinations=tuple(options.destinations), names=names)


def _values(given: Sequence[str], empty: Sequence[str]) -> list[str]:
    """The values of a flag that may be repeated and may hold several between commas."""
    values = [value.strip() for text in given for value in text.split(",")]
    return [] if len(values) == 1 and values[0].lower() in empty else values


def _parser() -> argparse.ArgumentParser:
    parser = _command_parser(_Parser, prog="replayer", description=_ABOUT)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_settings(_command(commands, "run", _run, "receive mirrored packets and replay their requests", _RUN))
    _add_extract(_command(commands, "extract", _extract, "print the requests in capture files as JSON", _EXTRACT))
    _add_replay(_command(commands, "replay", _replay, "send the requests in capture files to a destination", _REPLAY))
    _add_settings(_command(commands, "check", _check, "tell whether `run` would work with these settings", _CHECK))
    return parser


def _command(commands: Any, name: str, run: Any, text: str, epilog: str) -> argparse.ArgumentParser:
    parser = _command_parser(
        commands.add_parser, name=name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog
    )
    parser.set_defaults(command=run, parser=parser, destinations=[])
    return parser


def _command_parser(make: Any, **options: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = make(formatter_class=_formatter, allow_abbrev=False, **options)
    parser.add_argument("--version", action="version", version=f"replayer {__version__}")
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=120)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [--config FILE|ssm:NAME] [--destination URL ...] [flags]"
    group = parser.add_argument_group(
        "settings",
        "Flags win over the file. Lists: A,B or the flag repeated; `all` empties the file's (--drop-headers: `none`).",
    )
    group.add_argument("--config", metavar="FILE|ssm:NAME", help="YAML file or SSM parameter with settings")
    _add_fields(parser.add_argument_group("receiving"), Settings, _RECEIVING)
    group = parser.add_argument_group("destinations", "The flags below --destination apply to every destination.")
    group.add_argument(
        "--destination",
        metavar="URL",
        action="append",
        dest="destinations",
        help="a test environment's entry point; repeat for several; replaces the file's destinations",
    )
    _add_fields(group, Destination, [name for name in Destination.model_fields if name != "url"])
    _add_fields(parser.add_argument_group("selecting"), Settings, _SELECTING)
    _add_fields(parser.add_argument_group("caps", "Each per shard; reaching one is counted."), Caps, Caps.model_fields)
    _add_fields(parser.add_argument_group("running"), Settings, _RUNNING)


def _add_capture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="pcap or pcapng, also gzipped")
    group = parser.add_argument_group("reading")
    for flag, name, text in _READING:
        _add_field(group, f"settings.{name}", Settings.model_fields[name], flag, text)
    parser.set_defaults(names=_OFFLINE, **{"settings.geneve_port": _GENEVE_PORT})


def _add_extract(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s FILE... [flags]"
    _add_capture(parser)
    parser.add_argument("--body", dest="with_body", action="store_true", help="add each body as base64")
    _add_fields(parser.add_argument_group("caps", "Reaching one is counted."), Caps, _CAPS)


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s FILE... --to URL [--speed FACTOR|max] [flags]"
    _add_capture(parser)
    parser.add_argument("--to", metavar="URL", required=True, help="the test environment's entry point")
    parser.add_argument(
        "--speed",
        metavar="FACTOR|max",
        type=_speed,
        default=1.0,
        help="pace: 1 as captured (the default), 2 twice as fast, max as fast as answers come",
    )
    fields = [name for name in Destination.model_fields if name not in ("url", *_QUEUE)]
    _add_fields(parser.add_argument_group("destination"), Destination, fields)
    _add_fields(parser.add_argument_group("selecting"), Settings, _SELECTING)
    _add_fields(parser.add_argument_group("caps", "Reaching one is counted."), Caps, _CAPS)
    parser.set_defaults(names={**_OFFLINE, "destination": "--to"})


def _speed(text: str) -> float:
    """A pace; `max` is infinite."""
    try:
        speed = float("inf") if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0 or (speed == float("inf") and text != "max"):
        raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0, or max")
    return speed


def _add_fields(group: Any, model: type[BaseModel], names: Sequence[str] | Mapping[str, Any]) -> None:
    prefix = {Settings: "settings", Caps: "caps", Destination: "destination"}[model]
    for name in names:
        flag = f"--{'cap-' if model is Caps else ''}{name.replace('_', '-')}"
        _add_field(group, f"{prefix}.{name}", model.model_fields[name], flag)


def _add_field(group: Any, place: str, field: FieldInfo, flag: str, text: str = "") -> None:
    """A flag for one setting, with its description and default. It checks nothing: `settings` does."""
    text = text or f"{field.description}{_default(field)}"
    options: dict[str, Any] = {"dest": place, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if field.annotation is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
    elif type(None) in get_args(field.annotation):
        group.add_argument(flag, type=_optional, metavar=_metavar(field.annotation), **options)
    elif get_origin(field.annotation) is tuple:
        group.add_argument(flag, action="append", metavar=_metavar(get_args(field.annotation)[0]), **options)
    else:
        group.add_argument(flag, metavar=_metavar(field.annotation), **options)


def _optional(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if isinstance(kind, UnionType) or (get_args(kind) and not isinstance(kind, TypeAliasType)):
        return _metavar(get_args(kind)[0])
    return _METAVARS[kind]


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    kind: Any = field.annotation
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f" (default {'yes' if value else 'no'})"
    if isinstance(value, tuple):
        return f" (default {','.join(map(str, value))})"
    if kind is settings.Size:
        return f" (default {_size(value)})"
    return f" (default {value:g})" if isinstance(value, float) else f" (default {value})"


def _size(value: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)
