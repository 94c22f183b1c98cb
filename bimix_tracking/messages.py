"""Sentences that remember what they were made of, so that a page can say them in another language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Self


class Said(str):  # noqa: SLOT000  # what it was made of has no fixed size
    """An English sentence, with the template and the values it was made from; see `said`.

    It is a plain string to everyone but a translator. Joining or cutting it leaves a plain string, which is shown as it
    is; `joined` keeps the parts.

    Args:
        template: English, with named fields as `str.format` takes them. It is the key in a language's catalogue.
        values: Field → what stands there; sentences among them are translated too.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, values: Mapping[str, object]) -> Self:
        """Return the English sentence."""
        text = super().__new__(cls, template.format(**values))
        text.template, text.values = template, dict(values)
        return text

    def __getnewargs__(self) -> tuple[str, Mapping[str, object]]:  # type: ignore[override]  # of str's, its text
        """Return what a pickled sentence is made from again."""
        return self.template, self.values


def said(template: str, /, **values: object) -> str:
    """Return a sentence that can be said in another language.

    Args:
        template: English, a literal, with named fields; a test finds it in the source and asks for its translation.
        **values: What stands in the fields: strings, or numbers with a format in the template.

    >>> sentence = said("{runs} runs of {domain}", runs=3, domain="code")
    >>> sentence, sentence.template
    ('3 runs of code', '{runs} runs of {domain}')
    >>> translated(sentence, {"{runs} runs of {domain}": "{domain} の実行 {runs} 件"}.get)
    'code の実行 3 件'
    """
    return Said(template, values)


def joined(parts: Iterable[str], separator: str = " ") -> str:
    """Return sentences one after another, each still to be translated on its own.

    >>> joined([said("One."), "", said("Two.")])
    'One. Two.'
    """
    kept = [part for part in parts if part]
    template = separator.join(f"{{part{number}}}" for number in range(len(kept)))
    return Said(template, {f"part{number}": part for number, part in enumerate(kept)})


def translated(text: str, find: Callable[[str], str | None]) -> str:
    """Return a sentence in the language of a catalogue; what the catalogue lacks stays English.

    Args:
        text: A `Said`, or any string: a name or a number, which has no other language.
        find: The catalogue: template → its translation, with the same fields, or None.
    """
    if not isinstance(text, Said):
        return text
    values = {name: translated(v, find) if isinstance(v, str) else v for name, v in text.values.items()}
    return (find(text.template) or text.template).format(**values)


def few(names: Iterable[str], most: int = 5) -> str:
    """Return names as a sentence bears them: the first ones, and how many more there are.

    >>> few(["code", "web"]), few(map(str, range(9)))
    ("'code', 'web'", "'0', '1', '2', '3', '4' and 4 more")
    """
    listed = list(names)
    first = ", ".join(map(repr, listed[:most]))
    return first if len(listed) <= most else said("{names} and {count} more", names=first, count=len(listed) - most)
