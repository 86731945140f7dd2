"""hls4ml's arrays of weights, so that a C++ compiler is quick: it takes numbers, and makes fixed-point values when run.

A large array of fixed-point values with an initializer is a constructor's call for every value, which g++ optimizes for
minutes. The vendor's tools need that form, since it is a memory's contents. Both forms are written from one list.
"""

import re
from pathlib import Path

from braggnn_edge.core.errors import UserError

#: Smaller arrays stay as hls4ml wrote them.
_LEAST = 256

_ARRAY = re.compile(r"^(?P<type>\w+) (?P<name>\w+)\[(?P<count>\d+)\] = (?P<values>\{[^}]*\});$", re.MULTILINE)
_FORM = """\
#ifdef __SYNTHESIS__
#define BRAGGNN_ARRAY {type} {name}[{count}]
#else
#define BRAGGNN_ARRAY static const double {name}_values[{count}]
#endif
BRAGGNN_ARRAY = {values};
#undef BRAGGNN_ARRAY
#ifndef __SYNTHESIS__
static {type} {name}[{count}];
static bool {name}_is_set() {{
    for (int i = 0; i < {count}; i++)
        {name}[i] = {name}_values[i];
    return true;
}}
static const bool {name}_set = {name}_is_set();
#endif"""


def compile_quickly(directory: Path) -> None:
    """Rewrite the arrays in ``firmware/weights`` of a project. UserError for a file of another form than hls4ml's."""
    for path in sorted((directory / "firmware" / "weights").glob("*.h")):
        text = path.read_text()
        found = _ARRAY.findall(text)
        if len(found) != 1:
            raise UserError(f"{path.name}: hls4ml wrote {len(found)} arrays, expected 1")
        if int(found[0][2]) >= _LEAST:
            path.write_text(_ARRAY.sub(lambda match: _FORM.format(**match.groupdict()), text))
