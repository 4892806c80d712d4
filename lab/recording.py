"""Records what `lab.fallback` replays: `python -m lab.recording`, and look at what changed in lab/recorded/.

One mirrored instance, clients that send little, and tcpdump where the balancer's packets leave for the workers. The
list beside the capture is production's own log. Both are kept only if a replay of them is without fault.
"""

import gzip
import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lab import fallback
from lab.build import built
from lab.fallback import NO_BODY, RECORDED
from lab.logs import Follower
from lab.network import sandbox
from lab.network.nginx import Entry
from lab.traffic import Mix
from lab.vpc import PRODUCTION, Lab

#: Some 100 requests, and 100 kB of them.
MIX = Mix(
    gets=15, get_connections=2, posts=3, post_bytes=1500, fresh=3, uploads=1, upload_bytes=9000, seconds=4
)  # fmt: skip

_DEVICE = "nlb"  # the router's, towards the balancer
_WITHIN = 30.0


def record(lab: Lab, folder: Path) -> None:
    """A capture and its list, for a lab whose stack is deployed."""
    [one] = lab.launch(tags=PRODUCTION)
    lab.fabric.wait("it is mirrored", lambda: one in lab.windows(), _WITHIN)
    capture, said = folder / "requests.pcap", folder / "tcpdump"
    command = ["tcpdump", "-i", _DEVICE, "-U", "-w", str(capture), "udp", "dst", "port", "4789"]
    with said.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as tcpdump:
        lab.fabric.wait("tcpdump listens", lambda: b"listening on" in said.read_bytes(), _WITHIN)
        lab.traffic.start(one, lab.address(one), MIX)
        lab.fabric.wait("the clients have ended", lambda: not lab.traffic.alive(one), _WITHIN)
        lab.tally()  # takes the time that all needs to arrive
        tcpdump.send_signal(signal.SIGINT)
    with capture.open("rb") as plain, gzip.GzipFile(folder / "requests.pcap.gz", "wb", mtime=0) as packed:
        shutil.copyfileobj(plain, packed)
    entries = Follower(lab.crew.machines.log(one)).read()
    (folder / "requests.txt").write_text("".join(line(entry) for entry in entries))


def line(entry: Entry) -> str:
    """As `lab.fallback.parse` reads it."""
    return f"{entry.method} {entry.target} {entry.sha256 if entry.sha256 not in ('', NO_BODY) else '-'}\n"


def main() -> int:
    """0, or 1 if what was recorded is not what was sent."""
    template = built()
    sandbox.enter()
    folder = sandbox.FILES / "recorded"
    folder.mkdir()
    with Lab(template) as lab:
        lab.deploy()
        record(lab, folder)
    if complaints := fallback.run(folder).complaints():
        print("; ".join(complaints), file=sys.stderr)
        return 1
    for name in ("requests.pcap.gz", "requests.txt"):
        shutil.copyfile(folder / name, RECORDED / name)
        print(f"{hashlib.sha256((RECORDED / name).read_bytes()).hexdigest()[:16]}  {RECORDED / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
