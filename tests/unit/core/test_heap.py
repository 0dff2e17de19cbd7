"""Memory that is given back stays with the process."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

GIVES_BACK = """
import sys
from tunesmith.core import heap

def held():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

if sys.argv[1] == "keep" and not heap.keep():
    sys.exit(3)
blocks = [bytearray(b"x") * (8 << 20) for _ in range(20)]
most = held()
del blocks
print(most - held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_what_is_freed_is_kept_for_the_next_step() -> None:
    assert find_spec("tunesmith")
    freed = {}
    for way in ("plain", "keep"):
        done = subprocess.run(
            [sys.executable, "-c", GIVES_BACK, way], capture_output=True, text=True, check=False
        )
        if done.returncode == 3:
            pytest.skip("this C library is not glibc")
        freed[way] = int(done.stdout)
    assert freed["plain"] > 100_000, "without it, most of 160 MB goes back to the system"
    assert freed["keep"] < 20_000
