"""docs/mirrorctl.md shows what mirrorctl prints: its commands are run, in their order, and the output compared.

`python -m tests.docs.test_mirrorctl_examples` writes the page anew.
"""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.cloud.account import strict_server
from lab.cloud.populate import Population, populate
from tests.layers.mirroring.program import mirrorctl

PAGE = Path(__file__).parents[2] / "docs/mirrorctl.md"
BLOCK = re.compile(r"(?:^`(?P<name>[\w.-]+)`:\n\n```yaml\n|^```console\n)(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
CHANCE = (
    (re.compile(r"\b(i|eni|vpc|subnet|sg|pcx|tmt|tmf|tms)-[0-9a-f]{17}\b"), r"\1-id"),
    (re.compile(r"VNI \d+"), "VNI n"),
    (re.compile(r"net/mirror-\d+/[0-9a-f]{16}"), "net/mirror"),
)
WIDTH = 110


def rewritten(page: str, people: Population, folder: Path) -> str:
    """The page with the output that its commands have now. Its files are written into the folder."""
    explained = iter((people.web[0], people.web[19], people.pay[9]))
    code = 0

    def run(found: re.Match[str]) -> str:
        nonlocal code
        command = re.sub(r"(?<=^mirrorctl explain )\S+", lambda _: next(explained), found["command"])
        if command == "echo $?":
            return f"$ {command}\n{code}\n"
        program, *arguments = shlex.split(command)
        assert program == "mirrorctl"
        done = mirrorctl(*arguments, columns=WIDTH)
        code = done.code
        return f"$ {command}\n" + "".join(f"{line.rstrip()}\n" for line in (done.out + done.err).splitlines())

    def block(found: re.Match[str]) -> str:
        if not found["name"]:
            return found[0].replace(found["text"], COMMAND.sub(run, found["text"]))
        text = re.sub(r"tmt-[0-9a-f]{17}", people.target, found["text"])
        text = re.sub(r"tmf-[0-9a-f]{17}", people.filter, text)
        (folder / found["name"]).write_text(text)
        return found[0].replace(found["text"], text)

    return BLOCK.sub(block, page)


def normal(page: str) -> str:
    """Without what chance decides: ids hang on moto's random numbers."""
    for pattern, name in CHANCE:
        page = pattern.sub(name, page)
    return page


@contextmanager
def workplace() -> Iterator[tuple[Population, Path]]:
    """50 instances behind a server, and an empty folder to work in."""
    before = Path.cwd()
    with TemporaryDirectory() as folder, strict_server() as account:
        people = populate(account)
        os.chdir(folder)
        try:
            yield people, Path(folder)
        finally:
            os.chdir(before)


def test_the_page_shows_what_is_printed() -> None:
    page = PAGE.read_text()
    with workplace() as (people, folder):
        assert normal(rewritten(page, people, folder)).splitlines() == normal(page).splitlines()


def test_every_command_is_shown() -> None:
    shown = {" ".join(found["command"].split()[1:3]) for found in COMMAND.finditer(PAGE.read_text())}
    for command in ("policy validate", "policy show", "policy import"):
        assert command in shown
    assert {"plan", "apply", "status", "explain", "checkup"} <= {name.split()[0] for name in shown if name}


if __name__ == "__main__":
    with workplace() as place:
        text = rewritten(PAGE.read_text(), *place)
    PAGE.write_text(text)
