"""Seconds and bytes that a process of a benchmark took; needs nothing but Python."""

import time
from pathlib import Path


def now() -> tuple[float, float]:
    """By the wall and by the processor, which other people's work slows down less."""
    return time.monotonic(), time.process_time()


def spent(began: tuple[float, float]) -> dict[str, float]:
    """Seconds since, by both clocks."""
    wall, processor = (a - b for a, b in zip(now(), began, strict=True))
    return {"seconds": wall, "processor_seconds": processor}


def peak() -> float:
    """The most memory this process ever held, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6
