"""The dataflow functions of an io_stream project as C++ for the stream simulation, made from a copy of its sources."""

import re

from braggnn_edge.core.errors import UserError

#: Dataflow functions that are called by the top function, and the headers in ``nnet_utils`` that hold them.
REGIONS = {"nonlocal": "nnet_nonlocal.h"}

#: Depth that HLS gives a stream without a pragma, and copies that it gives an array between two processes.
_DEFAULT_DEPTH = "2"

_PRAGMA = re.compile(r"^#pragma HLS (\w+)(.*)$", re.MULTILINE)
_STATEMENT = re.compile(r"([^;]+);[ \t]*(?://[ \t]*(\S+))?")
_STREAM = re.compile(r"hls::stream<(?P<type>.+)>\s*(?P<name>\w+)\s*(\(\s*\"\w*\"\s*\))?", re.DOTALL)
_ARRAY = re.compile(r"(?P<type>(typename )?[\w:<>, ]+?)\s+(?P<name>\w+)(?P<dims>(\[[^\]]+\])+)", re.DOTALL)
_KEPT = re.compile(r"(typedef|using|auto ?&|static const|const|constexpr)\s", re.DOTALL)
_CALL = re.compile(
    r"(?!(?:if|for|while|switch|do|else|return)\b)(?P<function>[\w:]+)\s*(<.*>)?\s*\((?P<arguments>.*)\)", re.DOTALL
)


def ports(text: str, function: str) -> tuple[str, str]:
    """Element types of the one input and the one output stream of the top function."""
    start, _, _ = _find(text, function)
    found = re.findall(r"hls::stream<(.+?)>\s*&\s*\w+", text[start : text.index("{", start)])
    if len(found) != 2:
        raise UserError(f"{function} has {len(found)} streams, expected an input and an output")
    return found[0], found[1]


def dataflow(text: str, function: str) -> str:
    """The source with the body of one dataflow function replaced by declarations for ``stream_hls.h``.

    Streams get the depth of their ``#pragma HLS STREAM``, arrays become ping-pong buffers, calls become processes,
    named after the comment that follows them or the function. Code for simulations only is left out. A statement
    that is none of these, and an array that is not written by one process and read by one later, which is what HLS
    can hand over, are refused.
    """
    _, opening, closing = _find(text, function)
    body = re.sub(r"#ifndef __SYNTHESIS__.*?#endif", "", text[opening + 1 : closing], flags=re.DOTALL)
    body = re.sub(r"^[ \t]*//.*$", "", body, flags=re.MULTILINE)
    body = re.sub(r"^[ \t]+#", "#", body, flags=re.MULTILINE)
    depths = _depths(_PRAGMA.findall(body), function)
    statements = [
        (statement.strip(), comment) for statement, comment in _STATEMENT.findall(_PRAGMA.sub("", body)) if statement
    ]
    declared: dict[str, str] = {}  # arrays
    lines: list[str] = []
    calls: list[tuple[str, list[str], str, str]] = []
    for statement, comment in statements:
        if stream := _STREAM.fullmatch(statement):
            depth = depths.pop(stream["name"], _DEFAULT_DEPTH)
            lines.append(f'hls::stream<{stream["type"]}> {stream["name"]}("{stream["name"]}", {depth});')
        elif _KEPT.match(statement):
            lines.append(f"{statement};")
        elif call := _CALL.fullmatch(statement):
            called = call["function"].rpartition("::")[2]
            calls.append((called, _split(call["arguments"]), statement[: call.start("arguments")], comment))
        elif array := _ARRAY.fullmatch(statement):
            name, depth = array["name"], depths.pop(array["name"], _DEFAULT_DEPTH)
            declared[name] = depth
            lines.append(f"typedef {array['type']} {name}_array{array['dims']};")
            lines.append(f'simulation::PingPong<{name}_array> {name}("{name}", {depth});')
        else:
            raise UserError(f"{function}: the stream simulation does not know the statement {statement!r}")
    if depths:
        raise UserError(f"{function}: a depth is given to {', '.join(depths)}, which is not declared")
    _check_arrays(function, declared, calls)
    seen: set[str] = set()
    for called, arguments, head, comment in calls:
        passed = ", ".join(f"{name}.copy()" if name in declared else name for name in arguments)
        name = comment or called.removeprefix(f"{function}_")
        if called in REGIONS:
            lines.append(f'simulation::region("{name}", [&]() {{ {head}{passed}); }});')
            continue
        mine = [argument for argument in arguments if argument in declared]
        written = ", ".join(f"&{argument}" for argument in mine if argument not in seen)
        read = ", ".join(f"&{argument}" for argument in mine if argument in seen)
        seen.update(mine)
        lines.append(f'simulation::process("{name}", {{{written}}}, {{{read}}}, [&]() {{ {head}{passed}); }});')
    lines.append("simulation::park();")
    return text[: opening + 1] + "\n    " + "\n    ".join(lines) + "\n" + text[closing:]


def _find(text: str, function: str) -> tuple[int, int, int]:
    """Where a function's name, its opening and its closing brace are."""
    found = re.search(rf"\bvoid\s+{function}\s*\(", text)
    if not found:
        raise UserError(f"there is no function {function}; generate the project again")
    opening = text.index("{", found.end())
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return found.start(), opening, at
    raise UserError(f"the function {function} does not end; generate the project again")


def _depths(pragmas: list[tuple[str, str]], function: str) -> dict[str, str]:
    """Depth, as a C++ expression, by the name of a stream or an array."""
    if "DATAFLOW" not in [kind for kind, _ in pragmas]:
        raise UserError(f"{function} is no dataflow region; the stream simulation takes io_stream projects")
    depths = {}
    for kind, rest in pragmas:
        if kind == "STREAM":
            options = dict(option.partition("=")[::2] for option in rest.split())
            if "variable" not in options or options.get("type", "fifo") not in ("fifo", "pipo"):
                raise UserError(f"{function}: the stream simulation does not know the pragma STREAM{rest}")
            depths[options["variable"]] = options.get("depth", _DEFAULT_DEPTH)
    return depths


def _check_arrays(function: str, arrays: dict[str, str], calls: list[tuple[str, list[str], str, str]]) -> None:
    for name in arrays:
        users = [called for called, arguments, _, _ in calls if name in arguments]
        if len(users) != 2:
            raise UserError(
                f"{function}: the array {name} is used by {len(users)} processes ({', '.join(users)}); HLS can hand an "
                "array from the one process that writes it to the one that reads it"
            )


def _split(arguments: str) -> list[str]:
    """Arguments of a call, split at the commas outside of brackets."""
    found, depth = [""], 0
    for character in arguments:
        depth += {"(": 1, "<": 1, "[": 1, "{": 1, ")": -1, ">": -1, "]": -1, "}": -1}.get(character, 0)
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [argument.strip() for argument in found]
