"""`make demo`: the whole product on this machine, told as a story, with a table at its end that says what arrived.

Event, Lambda, session, mirrored packets, replayed requests: `lab.vpc` builds it, `lab.story` is what happens in it.
`KEEP=1` (or --keep) stays up afterwards, for a second terminal.
"""

import argparse
import io
import os
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lab import fallback, screen, story, summary, worker
from lab.build import built
from lab.cloud import deployment, emulator
from lab.fabric.router import INTERNET
from lab.network import prerequisites, sandbox
from lab.network.namespaces import inside
from lab.show import Show
from lab.summary import Outcome
from lab.vpc import STACK, Lab

_FAIL, _UNUSABLE, _INTERRUPTED = 1, 2, 130
_OUTSIDE = ("127.0.0.1", 0)
_entered: list[Lab] = []  # and never left, nor forgotten: all of it ends with this process, see `_end`


def main() -> int:
    """0 for PASS, 1 for FAIL, 2 when the machine lacks something, 130 when interrupted."""
    options = _parse()
    console = Console()
    if not console.is_terminal:
        console.width = screen.WIDTH
    try:
        if refusal := refused():
            print(f"{refusal}\nUntil then, packets that this lab recorded are replayed to a local server.", flush=True)
            return fallback.main()
        if complaint := lacking():
            print(complaint, file=sys.stderr)
            return _UNUSABLE
        with console.status("building the stack, once"):
            template = built()
        # Where the lab is to stay up: for the emulator, and for the forwarder.
        doors = [socket.create_server(_OUTSIDE) for _ in range(2 if options.keep else 0)]
        entrance = way_in(os.getpid(), os.getuid())
        sandbox.enter()
        lab = Lab(template, listener=doors[0] if doors else None)
        return run(lab, console, doors[-1] if doors else None, entrance, options.picture)
    except KeyboardInterrupt:
        print("interrupted; nothing is left behind", file=sys.stderr)
        return _INTERRUPTED
    except (deployment.DeploymentError, subprocess.TimeoutExpired, sandbox.SandboxError, OSError) as error:
        print(error, file=sys.stderr)
        return _UNUSABLE


def refused() -> str:
    """What the kernel says to a sandbox, tried in a process of its own; empty where it grants one."""
    command = [sys.executable, "-m", "lab.network.sandbox", "true"]
    done = subprocess.run(command, check=False, cwd=deployment.ROOT, capture_output=True, text=True)
    return (done.stderr.strip() or "no sandbox") if done.returncode else ""


def lacking() -> str | None:
    """One line that says what is missing, and what brings it."""
    programs = (worker.program(), emulator.PYTHON, deployment.SAM)
    missing = [str(path) for path in programs if not path.exists()]
    return prerequisites.complaint() or (f"the demo needs {', '.join(missing)}: make setup" if missing else None)


def run(lab: Lab, console: Console, door: socket.socket | None, entrance: str, picture: Path | None) -> int:
    """In the sandbox. `door`, where the lab is to stay up, is a socket outside, for the forwarder.

    Whatever goes wrong here is a FAIL.
    """
    began = time.monotonic()
    _entered.append(lab)
    try:
        with console.status("an empty account comes up"):
            lab.__enter__()
        outcome, best = told(lab, console, began)
        console.print(summary.drawn(outcome))
        if picture is not None:
            save(picture, [*best, summary.verdict(outcome)])
        if door is not None:
            stay(lab, console, door, entrance)
    except Exception as error:  # noqa: BLE001  the top of the program
        console.print(Text.assemble(("FAIL", "bold red"), f"  {str(error) or type(error).__name__}"))
        console.print(blame(lab, error), markup=False, highlight=False)
        return _FAIL
    return _FAIL if summary.complaints(outcome) else 0


def blame(lab: Lab, error: Exception) -> str:
    """What may tell why the story did not go on."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    found = [f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}"]
    found += getattr(error, "__notes__", [])  # of a lab that did not come up
    if hasattr(lab, "fabric"):
        found += [f"{instance}: {words}" for instance, words in lab.fabric.troubled.items()]
        found += [f"{instance}: {words}" for instance, words in lab.crew.machines.ended().items()]
    if hasattr(lab, "cloud") and lab.cloud.log.exists():
        found += ["the emulator's log ends with:", lab.cloud.output()]
    return "\n".join(found)


def told(lab: Lab, console: Console, began: float) -> tuple[Outcome, list[RenderableType]]:
    """What came of the story, and the screen at its best moment."""
    pictures: list[RenderableType] = []
    with Show(console, lab.snapshot, story.STAGES, "Ctrl-C ends it, nothing is left behind") as show:
        grown = story.tell(lab, show, lambda: pictures.extend(show.picture()))
    tallies = lab.tally()
    buffers = [lab.crew.machines.status(one)["receive_buffer"] for one in lab.crew.machines.workers()]
    return Outcome(tallies, lab.snapshot(), grown, time.monotonic() - began, remedy(buffers)), pictures


def remedy(buffers: Iterable[Mapping[str, int]]) -> str:
    """For workers' sockets that dropped packets: an ordinary user's may be too small."""
    small = [one for one in buffers if one["effective"] < one["wished"]]
    return f"sudo sysctl -w net.core.rmem_max={small[0]['wished']}, or run it as root" if small else ""


def save(path: Path, pictures: Iterable[RenderableType]) -> None:
    """What the terminal shows, as SVG. No font is fetched from anywhere."""
    console = Console(
        record=True, width=screen.WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Group(*pictures))
    text = console.export_svg(title="make demo")
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL))


def stay(lab: Lab, console: Console, forwarder: socket.socket, entrance: str) -> None:
    """Until Ctrl-C. Load goes on, a second terminal may do what it likes."""
    command = [sys.executable, "-m", "lab.forward", "--socket", str(forwarder.fileno())]
    with inside(INTERNET):
        subprocess.Popen(command, cwd=deployment.ROOT, pass_fds=(forwarder.fileno(),))
    members = lab.members(story.GROUP)
    for one in members:
        lab.traffic.start(one, lab.address(one), story.MIX)
    first = members[0]
    text = invitation(lab.cloud.environment, first, lab.address(first), forwarder.getsockname()[1], entrance)
    console.print(text, markup=False, highlight=False, soft_wrap=True)  # to be pasted
    with Show(console, lab.snapshot, hint="Ctrl-C ends it, nothing is left behind") as show:
        show.stage("everything stays up")
        while True:
            show.pause(3600)


def way_in(outside: int, user: int) -> str:
    """The command that opens a shell in a sandbox, for this user; `outside` is the process that waits outside."""
    namespaces = "--user --preserve-credentials --mount --net --pid" if user else "--all"
    return f"nsenter {namespaces} --target $(pgrep --parent {outside})"


def invitation(environment: Mapping[str, str], instance: str, address: str, port: int, entrance: str) -> str:
    """What to paste into a second terminal, and what to try there."""
    exports = "".join(f"export {name}={value}\n" for name, value in sorted(environment.items()))
    return f"""
In a second terminal, in this folder:

{exports}
.venv/bin/mirrorctl status --stack {STACK}                       # sessions, targets, findings, cost
.venv/bin/mirrorctl explain {instance} --stack {STACK}  # why it is mirrored, or is not
.venv/bin/python -m lab.do tag {instance} TrafficReplay=production
curl --proxy socks5://127.0.0.1:{port} http://{address}/hello   # a request of your own to it
.venv/bin/python -m lab.do bus --lost 0.5 --doubled 0.5      # what becomes of events from now on ...
.venv/bin/python -m lab.do scale {story.GROUP} 4                       # ... so that some of this is missed ...
.venv/bin/python -m lab.do sweep                             # ... until the schedule strikes
.venv/bin/python -m lab.do --help                            # what else can be done: docs/lab.md
{entrance}   # a shell inside: `ip netns`, `tc -s filter show dev ... egress`
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description="The whole product on this machine, as a story.")
    keep = bool(os.environ.get("KEEP"))
    parser.add_argument("--keep", action="store_true", default=keep, help="stay up afterwards, until Ctrl-C (KEEP=1)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="save what the terminal shows as an SVG")
    return parser.parse_args()


def _end(code: int) -> NoReturn:
    """With a sandbox's first process the kernel ends all others in it. To do so by hand would only take longer."""
    if sandbox.inside():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    try:
        code = main()
    except Exception:  # noqa: BLE001  the top of the program
        traceback.print_exc()
        code = _FAIL
    _end(code)
