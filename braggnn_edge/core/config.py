"""Configuration: a TOML file to frozen, typed, closed sections.

Sections are dataclasses that live beside the code they configure; the caller says which ones a file may have.
An unknown key, a missing value or a value of the wrong type is an error that names it and lists what is valid.
A section may keep ``RENAMED``, a mapping of keys of old to their names: the error for such a key says the name.
"""

import dataclasses
import difflib
import json
import os
import re
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from braggnn_edge.core.errors import UserError

#: The type of a key that holds the path of a file: absolute ones are those of one machine, and no part of a result.
FilePath = Annotated[str, "path of a file"]

#: Longest name of a scan or a run, bytes: files are named after it, with more behind, and most systems take 255.
LONGEST_NAME = 200

_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Config:
    """A parsed file: the run's default name, the seed, and its sections by name."""

    name: str
    seed: int
    sections: Mapping[str, Any]
    folder: Path
    given: frozenset[str] = frozenset()  # the tables that the file holds

    def __getitem__(self, section: str) -> Any:
        return self.sections[section]

    def plain(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The named sections and the seed as plain JSON-able values, for manifests and fingerprints."""
        return {"seed": self.seed} | {name: _plain(self.sections[name]) for name in names}


def load(path: Path, sections: Mapping[str, Any], renamed: Mapping[str, str] = types.MappingProxyType({})) -> Config:
    """Read a TOML file whose tables are ``sections``: name to a dataclass, or to ``tuple[dataclass, ...]``.

    A table that is left out takes its dataclass's defaults. ``extends`` names another file, relative to this one, whose
    keys hold where this one has none of its own; ``folder``, relative to this file, is where relative paths start from:
    the file's own folder where it says nothing. renamed: tables of before, and the one that now has their keys.
    Raises UserError for anything unexpected.
    """
    document = _document(path)
    known = ["name", "seed", "extends", "folder", *sections]
    for key in document:
        if key in renamed:
            new = renamed[key]
            raise UserError(f"{path}: table [{key}] is now part of [{new}]; move its keys there")
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}{_meant(key, known)}; valid keys are {', '.join(known)}")
    name = parse(str, document.get("name", path.stem), f"{path}: name")
    usable = name and all(c.isalnum() or c in "-_." for c in name) and not name.startswith(".")
    if not usable or len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"{path}: name {name!r} is not a folder name; use letters, digits, '-', '_' and '.', at most {LONGEST_NAME}"
        )
    seed = parse(int, document.get("seed", 1), f"{path}: seed")
    if not 0 <= seed < 2**32:
        raise UserError(f"{path}: seed {seed} is out of range; expected 0 to {2**32 - 1}")
    parsed = {
        key: parse(kind, document.get(key, [] if typing.get_origin(kind) is tuple else {}), f"{path}: {key}")
        for key, kind in sections.items()
    }
    return Config(
        name, seed, types.MappingProxyType(parsed), _folder(path, document), frozenset(document) & set(sections)
    )


def folder_of(path: Path) -> Path:
    """Where a configuration's relative paths start from, absolute."""
    return _folder(path, _document(path))


def _folder(path: Path, document: dict[str, Any]) -> Path:
    found = path.resolve().parent / parse(str, document.get("folder", ""), f"{path}: folder")
    if not found.is_dir():
        raise UserError(f"{path}: folder {document['folder']!r} is not a folder")
    return found.resolve()


def _document(path: Path, extended: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's content, laid over that of the file it extends."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"configuration {path} does not exist; the ones provided are in configs/") from error
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"configuration {path} cannot be read as TOML: {error}") from error
    if "extends" not in document:
        return document
    base = path.parent / parse(str, document["extends"], f"{path}: extends")
    if base.resolve() in (path.resolve(), *extended):
        raise UserError(f"{path}: extends {document['extends']!r}, which extends it in turn; break the circle")
    below = _document(base, (path.resolve(), *extended))
    return _over(document, {key: value for key, value in below.items() if key not in ("name", "folder")})


def _over(upper: dict[str, Any], lower: dict[str, Any]) -> dict[str, Any]:
    """``upper`` with the keys of ``lower`` that it lacks, table by table; an array is taken whole."""
    found = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        found[key] = _over(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return found


def parse(kind: Any, value: Any, where: str) -> Any:
    """Convert one TOML value to ``kind`` (a dataclass, scalar, tuple, union or Literal), or raise UserError."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_table(kind, value, where)
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(repr, choices))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _parse_union(typing.get_args(kind), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, got {value!r}")
        args = typing.get_args(kind)
        item_kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(item_kinds) != len(value):
            raise UserError(f"{where}: expected {len(item_kinds)} values, got {len(value)}")
        return tuple(parse(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(item_kinds, value, strict=True)))
    if kind is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # NaN is not equal to itself, so no stage would ever be up to date
            raise UserError(f"{where}: expected a finite number, got {value!r}")
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise UserError(f"{where}: expected {type_words(kind)}, got {value!r}")


def _parse_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    problems = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return parse(kind, value, where)
        except UserError as error:
            problems.append(str(error))
    several = len(problems) > 1 and not isinstance(value, list)  # of a list say which value is wrong
    words = " or ".join(type_words(kind) for kind in kinds if kind is not type(None))
    raise UserError(f"{where}: expected {words}, got {value!r}" if several else problems[-1])


def _parse_table(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a table, got {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in value:
        if key not in fields and key in getattr(kind, "RENAMED", {}):
            raise UserError(f"{where}: the key {key!r} is now called {kind.RENAMED[key]!r}; rename it")
        if key not in fields:
            raise UserError(f"{where}: unknown key {key!r}{_meant(key, fields)}; valid keys are {', '.join(fields)}")
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in value:
            raise UserError(f"{where}: the key {key!r} is missing; valid keys are {', '.join(fields)}")
    try:
        return kind(**{key: parse(hints[key], item, f"{where}.{key}") for key, item in value.items()})
    except UserError as error:
        message = str(error)
        file, _, table = where.rpartition(": ")
        if message.startswith((f"{table}: ", f"{table}.")):  # it names the table itself
            message = f"{file}: {message}" if file else message
        raise UserError(message if message.startswith(where) else f"{where}: {message}") from error


def _meant(key: str, known: Iterable[str]) -> str:
    """A question that offers the valid key most like a wrong one, where one is."""
    found = difflib.get_close_matches(key, known, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _plain(value: Any) -> Any:
    """Plain values without the absolute paths of one machine: of a :data:`FilePath` the last part is kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        plain = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {name: shortened(one) if hints[name] == FilePath else one for name, one in plain.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def shortened(text: str) -> str:
    """An absolute path as its last part, with the data set that may follow after a colon; another text as it is."""
    if not text.startswith(("/", "~")):
        return text
    path, colon, inside = text.partition(":")
    return f".../{Path(path).name}{colon}{inside}"


def type_words(kind: Any) -> str:
    """A type in the words of TOML."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(json.dumps(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_words(one) for one in arguments if one is not type(None))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {type_words(arguments[0])}"
        return f"[{', '.join(type_words(one) for one in arguments)}]"
    return "table" if dataclasses.is_dataclass(kind) else _WORDS.get(kind, "text")


def resolve_path(text: str, folder: Path) -> Path:
    """A path from a configuration: ``$NAME`` and ``~`` expanded, relative to the configuration's folder.

    Raises UserError naming a variable that is not set.
    """
    expanded = expand_variables(text, "path")
    head = text.partition("/")[0]
    if head.startswith("~") and "$" not in head:  # after the variables: a home may hold a $ of its own
        expanded = os.path.expanduser(head) + expanded[len(head) :]
    return folder / expanded


def expand_variables(text: str, what: str) -> str:
    """``$NAME`` and ``${NAME}`` of a text once; UserError, which calls it ``what``, for a variable that is not set."""

    def value(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1] or found[2]]
        except KeyError as error:
            raise UserError(
                f"{what} {text!r} uses an environment variable that is not set; export it and run again"
            ) from error

    return re.sub(r"\$(?:(\w+)|\{([^}]*)\})", value, text, flags=re.ASCII)


def refuse_unused(table: Any, keys: tuple[str, ...], why: str) -> None:
    """Raise UserError where one of the keys differs from its default although it has no effect.

    table: a dataclass, already made; why: ends the sentence "KEY = VALUE has no effect ..." (of a table no value).
    """
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in keys and value != default:
            said = "" if dataclasses.is_dataclass(value) else f" = {value}"
            raise UserError(f"{field.name}{said} has no effect {why}; leave it out")


def without(table: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The defaults of some keys of a table, for :func:`dataclasses.replace` where they lose their effect."""
    return {field.name: field.default for field in dataclasses.fields(table) if field.name in keys}
