"""Sizes and durations as Plimsoll writes them: "30MiB", "500ms"."""

import re

SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DURATIONS = {"ms": 0.001, "s": 1, "m": 60}


def size(text: str) -> int:
    """Bytes."""
    return int(_quantity(text, SIZES, "B", "size"))


def duration(text: str) -> float:
    """Seconds; a bare number is seconds."""
    return _quantity(text, DURATIONS, "s", "duration")


def count(text: str) -> int:
    """A whole number, not negative."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(f'"{text}" is not a whole number')
    return int(text)


def _quantity(text, units, bare, what):
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text)
    unit = match and (match[2] or bare)
    if unit not in units:
        raise ValueError(f'{what} "{text}" is not a number with one of {", ".join(units)}')
    return float(match[1]) * units[unit]
