"""YAML and JSON that people give, read within limits, and YAML that every reader takes for what was meant.

YAML 1.1 takes `no` for false, `010` for 8 and `12:30` for 750, and readers of YAML 1.2 take `1e3` for a number. None of
these is ever a name here: what could be something else must stand in quotes.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from bimix_tracking.errors import shown

LARGEST = 2**22
"""Characters, and bytes, of a document: a mixtures file of three thousand runs of fifty domains has half of it."""
_ENTRIES = 2**19
_DEEPEST = 50
_DIGITS = 4000
_LONGEST_ERROR = 200

# In Python alone, a document of this size takes minutes. Its own composer, in C, has no limit of depth and crashes.
_Parser: Any
if yaml.__with_libyaml__:
    from yaml.cyaml import CParser as _Parser  # type: ignore[attr-defined]  # its stub doesn't export it
else:
    from yaml.parser import Parser
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class _Parser(Reader, Scanner, Parser):  # type: ignore[no-redef]  # where PyYAML was built without libyaml
        def __init__(self, stream: str) -> None:
            Reader.__init__(self, stream)
            Scanner.__init__(self)
            Parser.__init__(self)


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(
    r"[-+]?(?!0[0-9_])[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)",
    re.IGNORECASE,
)
# What some reader takes for something else, though PyYAML takes it for text.
_OTHERWISE = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0[oO][0-7]+")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf", "infinity", "~"})


class Written:
    """How something stands in a document.

    Args:
        text: The characters.
        line: Counted from 1.
    """

    __slots__ = ("line", "text")

    def __init__(self, text: str, line: int) -> None:
        self.text, self.line = text, line

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        return f"{text or 'nothing'} in line {self.line}"


class Entries(dict[str, Any]):
    """A mapping of a document; `written` has, of the values that stand without quotes and are no text, how they do."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Hashable, Written] = {}

    def numbers(self) -> dict[str, Any]:
        """Return the entries, with each value that is not text and no decimal number replaced by what is written.

        >>> load_yaml("{a: 0.5, b: 010, c: yes}").numbers()
        {'a': 0.5, 'b': 010 in line 1, 'c': yes in line 1}
        """
        odd = {name: w for name, w in self.written.items() if not _DECIMAL.fullmatch(w.text)}
        return {name: odd.get(name, value) for name, value in self.items()}


class Items(list[Any]):
    """A list of a document; `written` as of `Entries`, by place."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Hashable, Written] = {}


def written(within: object, place: Hashable) -> str:
    """Return a value of `Entries`, `Items` or other values as it stands in the document, for an error's text.

    >>> written(load_yaml("{a: 010}"), "a"), written({"a": 8}, "a")
    ('010 in line 1', '8')
    """
    found = getattr(within, "written", {}).get(place)
    return shown(within[place] if found is None else found)  # type: ignore[index]  # a list or a mapping


def read_text(path: Path) -> str:
    """Return a file's text, which must be UTF-8 and no larger than a document may be.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, or no UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has {max(path.stat().st_size, len(content)):,} bytes; at most {LARGEST:,} are read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error.reason} at byte {error.start:,}") from None


def load_yaml(text: str, *, names_as_written: bool = False) -> Any:
    """Return a YAML or JSON document of plain types; mappings are `Entries` and lists `Items`.

    A name in a mapping must be text to every reader of YAML, and stand once. Aliases count as what they stand for.

    Args:
        text: The document.
        names_as_written: Whether `0` or `no` for a name is that text, as in a mapping that a program wrote.

    Raises:
        ValueError: It is none, or larger or deeper than any of ours; the text says why and where, in one short line.

    >>> load_yaml("{code: 0.3, web: 0.7}")
    {'code': 0.3, 'web': 0.7}
    >>> load_yaml("{no: 0.3, en: 0.7}")
    Traceback (most recent call last):
    ValueError: YAML takes the name no in line 1 for something else than text: put it in quotes, 'no'
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text):,} characters; at most {LARGEST:,} are read")
    try:
        if text.lstrip()[:1] in ("{", "["):  # JSON has tabs and pairs of surrogates, which YAML has not
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text, object_pairs_hook=_json_entries)
        loader = _Loader(text, names_as_written=names_as_written)
        return loader.get_single_data()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:  # a date of month 99
        raise ValueError(_in_a_line(error)) from error


def dump_yaml(content: object, *, width: int = 80) -> str:
    """Return YAML that reads back everywhere: in quotes whatever any reader could take for something else than text.

    >>> print(dump_yaml({"mixture": {"no": 0.25, "1e3": 0.5, "web": 0.25}}), end="")
    mixture:
      'no': 0.25
      '1e3': 0.5
      web: 0.25
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


def dump_json(content: Mapping[str, Any]) -> str:
    """Return JSON with a line an entry, and in a list of objects a line each: quick to write, and to look through.

    >>> print(dump_json({"law": "bimix", "rows": [{"run": "a"}, {"run": "b"}]}), end="")
    {
     "law": "bimix",
     "rows": [
      {"run": "a"},
      {"run": "b"}
     ]
    }
    """
    encode = json.JSONEncoder(ensure_ascii=False).encode
    parts = []
    for name, value in content.items():
        text = encode(value)
        if isinstance(value, Mapping) and value:
            text = "{\n  " + ",\n  ".join(f"{encode(key)}: {encode(one)}" for key, one in value.items()) + "\n }"
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            text = "[\n  " + ",\n  ".join(map(encode, value)) + "\n ]"
        parts.append(f" {encode(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


class _Loader(Composer, _Parser, SafeConstructor, Resolver):  # type: ignore[misc]  # the parser is one of two
    """PyYAML's safe loader within limits, which keeps how values were written."""

    def __init__(self, text: str, *, names_as_written: bool) -> None:
        _Parser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._as_written = names_as_written
        self._depth = self._entries = 0
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}  # of lists and mappings that are whole, and their depth

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse what is too large or too deep before it is made, and as soon as it is known."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if isinstance(node, yaml.CollectionNode) and node not in self._sizes:
                raise yaml.YAMLError(f"*{shown(event.anchor)} in line {_line(event)} refers to itself")
            return node
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {_DEEPEST} in line {_line(event)}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._entries += 1
        if self._entries > _ENTRIES:
            raise yaml.YAMLError(f"it has more than {_ENTRIES:,} entries")
        if isinstance(node, yaml.CollectionNode):
            self._measure(node)
        return node

    def _measure(self, node: yaml.CollectionNode) -> None:
        inner = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
        sizes = [self._sizes.get(one, (1, 1)) for one in inner]
        size, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        if size > _ENTRIES:
            raise yaml.YAMLError(f"it has more than {_ENTRIES:,} entries, with its aliases expanded")
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {_DEEPEST}, with its aliases expanded")
        self._sizes[node] = size, depth

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Check the names; a merge brings in others, which stand further down."""
        names: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name = self._name(key)
            if name in names:
                raise yaml.YAMLError(f"{shown(name)} appears twice, again in line {_line(key)}")
            names.add(name)
        return super().construct_mapping(node, deep=deep)

    def _name(self, key: yaml.Node) -> str:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.YAMLError(f"a name in line {line} is a list or a mapping; it must be text")
        if key.tag != _TEXT or (not key.style and _OTHERWISE.fullmatch(key.value)):
            if not self._as_written:
                quoted = shown(key.value) if key.value else "''"
                raise yaml.YAMLError(
                    f"YAML takes the name {Written(key.value, line)!r} for something else than text: put it in quotes, "
                    f"{quoted}"
                )
            key.tag = _TEXT
        return str(key.value)

    def construct_entries(self, node: yaml.MappingNode) -> Any:
        """Return a mapping, filled after it is made as PyYAML does."""
        made = Entries()
        yield made
        made.update(self.construct_mapping(node))
        for key, value in node.value:
            if _is_odd(value):
                made.written[key.value] = Written(value.value, _line(value))
            else:
                made.written.pop(key.value, None)  # what a merge brought in

    def construct_items(self, node: yaml.SequenceNode) -> Any:
        """Return a list, likewise."""
        made = Items()
        yield made
        made.extend(self.construct_sequence(node))
        for place, value in enumerate(node.value):
            if _is_odd(value):
                made.written[place] = Written(value.value, _line(value))

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Return an integer that Python can also write."""
        if len(node.value) > _DIGITS:
            raise yaml.YAMLError(f"a number in line {_line(node)} has {len(node.value):,} digits")
        return int(self.construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_entries)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.construct_items)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, but what any reader could take for something else than text stands in quotes."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Return a text, in quotes where it must be; PyYAML knows its own reader only."""
        unclear = text[:1] in "+-.0123456789" or text.lower() in _WORDS
        return self.represent_scalar(_TEXT, text, style="'" if unclear else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _json_entries(pairs: list[tuple[str, Any]]) -> Entries:
    made = Entries()
    for name, value in pairs:
        if name in made:
            raise ValueError(f"{shown(name)} appears twice")
        made[name] = value
    return made


def _line(of: yaml.Event | yaml.Node) -> int:
    return 1 if of.start_mark is None else int(of.start_mark.line) + 1


def _is_odd(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag != _TEXT


def _in_a_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = " ".join(str(getattr(error, "problem", None) or error)[: 10 * _LONGEST_ERROR].split())
    text = text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR - 3]}..."
    return text + (f" in line {mark.line + 1}, column {mark.column + 1}" if mark else "")
