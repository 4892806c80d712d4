"""The end of a process that this one started."""

import subprocess

_PATIENCE = 5.0


def stop(process: subprocess.Popen[bytes], patience: float = _PATIENCE) -> int:
    """End a process, by force if it does not end by itself; its exit status."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
