"""Run a command with the network cut: a namespace of its own in which only loopback is up."""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40


def main() -> None:
    """`offline.py COMMAND...`; where namespaces are not permitted, conftest.py's guard remains."""
    command = sys.argv[1:]
    if command[:1] == ["--inside"]:
        raise_loopback()
        os.execvp(command[1], command[1:])
    cut = cutter()
    if cut is None:
        print("offline.py: no network namespaces here; sockets are guarded in Python instead")
        os.execvp(command[0], command)
    os.execvp(cut[0], [*cut, sys.executable, __file__, "--inside", *command])


def cutter() -> list[str] | None:
    """The `unshare` call that is permitted here, if any."""
    if shutil.which("unshare") is None:
        return None
    for flags in ("-n", "-rn"):  # root keeps its rights with -n; anyone else needs a user namespace
        if subprocess.run(["unshare", flags, "true"], capture_output=True).returncode == 0:
            return ["unshare", flags]
    return None


def raise_loopback() -> None:
    """A new namespace has loopback down; servers and their tests need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(handle, SIOCSIFFLAGS, request)


if __name__ == "__main__":
    main()
