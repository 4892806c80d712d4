"""The commands that a page shows, and what is wrong with each: asked of the programs' own descriptions of themselves.

`aws` in `aws_commands`; `sam` against the options that the SAM CLI of `.venv/tools` declares; `make` against the
Makefile; `mirrorctl` and `replayer` by their own parsers. What is no program of these must be named in `OTHERS`, so
that a misspelt one is found.
"""

import contextlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mirroring import cli as mirrorctl
from replayer import cli as replayer
from tests.docs import aws_commands

ROOT = Path(__file__).parents[2]
SAM = ROOT / ".venv/tools/sam/bin/python"
FENCED = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:aws|make|mirrorctl|replayer|sam) [^`]+)`")
INNER = re.compile(r"\$\(((?:[^()]|\([^()]*\))*)\)")
OTHERS = frozenset("cd cp curl date echo export git jq printf python sudo tail".split())
KEYWORDS = frozenset("do done else fi for if then until while".split())


def commands(page: str) -> Iterator[list[str]]:
    """Every simple command of the page's shell blocks, as its words. A command inside $(…) is one of its own."""
    for block in FENCED.findall(page):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            yield from _simple(line)


def mentioned(page: str) -> Iterator[list[str]]:
    """The commands in the page's running text. They may leave out what was said before."""
    for text in INLINE.findall(FENCED.sub("", page)):
        yield from _simple(text)


def _simple(line: str) -> Iterator[list[str]]:
    while inner := INNER.search(line):
        yield from _simple(inner[1])
        line = f"{line[: inner.start()]}SUBSTITUTED{line[inner.end() :]}"
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    tokens = iter(lexer)
    for token in tokens:
        if set(token) <= set(";|&"):
            yield from _stripped(words)
            words = []
        elif set(token) <= set("<>"):
            next(tokens)  # the file
        else:
            words.append(token)
    yield from _stripped(words)


def _stripped(words: list[str]) -> Iterator[list[str]]:
    """Without the shell's own words and assignments before it."""
    while words and (words[0] in KEYWORDS or re.match(r"\w+=", words[0])):
        if words[0] == "for":
            return
        words = words[1:]
    if words:
        yield words


def faults(words: Sequence[str]) -> list[str]:
    """What is wrong with a command; nothing if it is well formed."""
    program, *arguments = words
    match re.sub(r"^\.venv/(tools/\w+/)?bin/", "", program):
        case "aws":
            found = aws_commands.faults(arguments)
        case "sam":
            found = _sam(arguments)
        case "make":
            found = _make(arguments)
        case "mirrorctl":
            found = _parsed(lambda: mirrorctl.parse(arguments, {}))
        case "replayer":
            found = _parsed(lambda: replayer._parser().parse_args(arguments))
        case other:
            found = [] if other in OTHERS else ["no program that this page may name"]
    return [f"{shlex.join(words)}: {fault}" for fault in found]


def _parsed(parse: Any) -> list[str]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            parse()
    except SystemExit:
        return [errors.getvalue().strip()]
    return []


def _make(arguments: Sequence[str]) -> list[str]:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))
    found = []
    for argument in arguments:
        name, assigned, _ = argument.partition("=")
        if assigned and not re.search(rf"\$[({{]{name}[)}}]|\$\(if \$\({name}\)|^#   {name}=", text, re.MULTILINE):
            found.append(f"the Makefile has no variable {name}")
        if not assigned and name not in targets:
            found.append(f"the Makefile has no target {name}")
    return found


def _sam(arguments: Sequence[str]) -> list[str]:
    paths = [" ".join(arguments[:length]) for length in (1, 2, 3)]
    known = _sam_options(arguments[0])
    path = next((path for path in paths if path in known), None)
    if path is None:
        return ["the SAM CLI has no such command"]
    options = known[path]
    found = []
    words = iter(arguments[len(path.split()) :])
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("-") and flag not in options:
            found.append(f"sam {path} has no {flag}")
        elif options.get(flag) is False and "=" not in word and next(words, "-").startswith("-"):
            found.append(f"{flag} wants a value")
    return found


@cache
def _sam_options(command: str) -> dict[str, dict[str, bool]]:
    """Of each command under this one: option → whether it is a switch."""
    program = """
import json, sys
import click
from samcli.cli.main import cli
context = click.Context(cli, obj=True)  # without obj, commands are not imported
def walk(command, path):
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), [*path, name])
    elif command is not None:
        kinds = [(one.opts + one.secondary_opts, bool(getattr(one, "is_flag", False))) for one in command.params]
        yield " ".join(path), {name: switch for names, switch in kinds for name in names}
name = sys.argv[1]
print(json.dumps(dict(walk(cli.get_command(context, name), [name]))))
"""
    environment = {"SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run([SAM, "-c", program, command], check=True, stdout=subprocess.PIPE, env=environment)
    options: dict[str, dict[str, bool]] = json.loads(done.stdout)
    return options
