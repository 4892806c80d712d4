"""One network namespace of the sandbox: commands for it, and this thread in it.

A thread can be in another network namespace than the rest of its program (setns(2)), and what it starts begins there.
"""

import array
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SETTINGS = Path("/proc/sys/net")  # of the thread's own namespace, whoever mounted /proc

# <linux/sockios.h>, <linux/ethtool.h>
_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK, _ETHTOOL_STSO, _ETHTOOL_SGSO, _ETHTOOL_SGRO = 0x0A, 0x1F, 0x24, 0x2C


class NetworkError(Exception):
    """A command that makes the network failed; the text is one line with its own words."""


def run(*command: str, lines: Sequence[str] = ()) -> str:
    """What a command prints; `lines` is its input. Raises NetworkError when it fails."""
    done = subprocess.run(
        command,
        check=False,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise NetworkError(f"{' '.join(command)}: {said}")
    return done.stdout


def ip(lines: Sequence[str], namespace: str = "") -> None:
    """Commands of `ip`, in order, by one process. The first that fails ends them."""
    _batch("ip", lines, ("-n", namespace) if namespace else ())


def tc(lines: Sequence[str]) -> None:
    """Commands of `tc`, likewise."""
    _batch("tc", lines, ())


def _batch(program: str, lines: Sequence[str], flags: Sequence[str]) -> None:
    if not lines:
        return
    try:
        run(program, *flags, "-batch", "-", lines=lines)
    except NetworkError as error:
        raise NetworkError(f"{error} (in: {'; '.join(line[:200] for line in lines)})") from None


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, and what it starts, in another network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            os.setns(there, os.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            os.setns(home, os.CLONE_NEWNET)
    finally:
        os.close(home)


def settle() -> None:
    """This thread's namespace: no IPv6, whose own chatter would go into a mirror, and packets taken from anywhere.

    A new namespace may have the machine's settings. Of rp_filter the interface's and `all` count, whichever is more.
    """
    for name in ("all", "default"):
        _set(f"ipv6/conf/{name}/disable_ipv6", 1)
    for path in (_SETTINGS / "ipv4/conf").glob("*/rp_filter"):
        path.write_text("0")


def forward() -> None:
    """This thread's namespace passes packets on."""
    _set("ipv4/ip_forward", 1)


def _set(name: str, value: int) -> None:
    path = _SETTINGS / name
    if path.exists():
        path.write_text(str(value))


def plain_frames(devices: Sequence[str]) -> None:
    """These devices of this thread's namespace carry frames as a wire would, none longer than the MTU.

    Else packets that the kernel has not cut yet, or has joined again, would go whole into a mirror.
    """
    for device in devices:
        for command in (_ETHTOOL_STSO, _ETHTOOL_SGSO, _ETHTOOL_SGRO):
            _ethtool(device, command)


def await_link(devices: Sequence[str]) -> None:
    """From now on these devices of this thread's namespace, whose other ends are up, lose nothing.

    Else the end that came up first would drop packets until the kernel's worker has seen that there is a carrier now,
    for a second at worst. To ask for the link's state makes up for that (linkwatch_sync_dev, in ethtool_op_get_link).
    """
    for device in devices:
        if not _ethtool(device, _ETHTOOL_GLINK):
            raise NetworkError(f"{device} has no carrier: its other end is not up")


def _ethtool(device: str, command: int) -> int:
    """The value that an ioctl takes (here 0) and gives."""
    value = array.array("I", (command, 0))  # struct ethtool_value
    request = struct.pack("16sP16x", device.encode(), value.buffer_info()[0])  # struct ifreq
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, _SIOCETHTOOL, request)
    return value[1]
