"""The fixed-point types that hls4ml copies into a project, so that g++'s program is quick. Vendors' tools have theirs.

Every operation ends with a clearing of the bits above its width. In the header it is a volatile member function, which
reads and writes memory each time and keeps a value from ever staying in a register. No object is volatile here, so the
word changes no result; without it the C simulation of the layers that ship is six times as fast.
"""

from pathlib import Path

_HEADER = Path("firmware", "ap_types", "etc", "ap_private.h")
_VOLATILE, _PLAIN = "INLINE void clearUnusedBits(void) volatile", "INLINE void clearUnusedBits(void)"


def simulate_quickly(directory: Path) -> None:
    """Rewrite the header in a project. One of another form is left as it is: it is right, and may be slow."""
    path = directory / _HEADER
    if path.is_file():
        path.write_text(path.read_text(encoding="utf-8").replace(_VOLATILE, _PLAIN), encoding="utf-8")
