"""Credentials: what of a URI, or of a text that quotes one, may be shown, written or sent.

URIs are split as those split them who connect with them. SQLAlchemy's rule is the widest: a password is everything from
the first colon to an `@`, with `/`, `?`, `#` and spaces in it. Where readings differ, the one that hides more counts.
Of a query, only values are shown whose names are known to be harmless.

What a text may repeat is known from the URIs that were seen before, and from the environment: a password is hidden
wherever it stands, as it is, decoded, percent-encoded, or escaped for JSON, YAML, HTML, SQL or a shell.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
_MOST_KNOWN = 4096
_SHORT = 4
"""Shorter secrets are hidden only where they stand as a value: everywhere, they would take words apart."""
_TOKEN = 12
"""A user without a password is an API key if it is as long as this."""

_URI = re.compile(r"((?:[A-Za-z][\w+.-]*:)+)//(.*)", re.DOTALL)
_PORT = re.compile(r"(?:\[[^\]]*\]|[^:/?#@]*)(?::\d{1,5})?(?=[/?#]|\Z)")
_ADDRESS = re.compile(r"(?:\[[^\]]*\]|[^:/?#@\s]*):\d{1,5}(?=[/?#\s:;,)]|\Z)")
_USERINFO = re.compile(r"[^:/]*(?::[^@]*)?@", re.DOTALL)
"""SQLAlchemy's (`sqlalchemy.engine.url._parse_url`)."""
_NAME = re.compile(r"[\w.%-]+")
_PLAIN_VALUE = re.compile(r"[\w.,:/+%-]*")
_PARAMETERS = re.compile(r"[?;].*", re.DOTALL)
_HARMLESS = re.compile(
    "application_name|charset|check_same_thread|client_encoding|connect_timeout|database|databasename|db|dbname|driver|"
    "encoding|host|hostaddr|mode|pool_size|port|region|schema|ssl|sslmode|target_session_attrs|timeout|workflowtype",
    re.IGNORECASE,
)
"""Names of a query whose values are shown."""
_CALLED = (
    r"[\w.-]{0,40}(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[-_]?key|access[-_]?key(?:[-_]?id)?|account[-_]?key|"
    r"private[-_]?key|signature|sig|credentials?|auth)"
)
_SECRET_NAME = re.compile(_CALLED, re.IGNORECASE)
_QUOTED = r"'(?:\\.|''|[^'\\])*'|\"(?:\\.|\"\"|[^\"\\])*\""
_PAIR = re.compile(rf"(?i)(?<![\w.-])({_CALLED}\s*=\s*)(?:{_QUOTED}|[^\s&;\"'<>]+?(?=[)\],.:]*(?:[\s&;\"'<>]|\Z)))")
_ENTRY = re.compile(rf"(?i)([\"']{_CALLED}[\"']\s*:\s*)(?:{_QUOTED})")
_LINE = re.compile(r"(?im)^(\s*[\w.-]{0,40}(?:password|passwd|secret|api_key)\s*:\s+)\S.*$")
_HEADER = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*)[\"']?[^\s\"',}]+(?:\s+[^\s\"',}]+)?")
_SCHEME = re.compile(r"\b(?i:(bearer))\s+[\w.~+/=-]{6,}|\b(Basic)\s+(?=\S*[\d=])[A-Za-z0-9+/=]{6,}")
_IN_TEXT = re.compile(r"((?:\b[A-Za-z][\w+.-]*:)+)//([^\s\"'<>`]*)")
_QUOTED_USERINFO = re.compile(
    r"(?<=://)(?![\w.\[\]-]*:\d{1,5}(?:[^\w@]|\Z))(?!\s)[^\s/@:\"'<>]*:(?!\s)[^\s@]*@"  # a quotation mark in a password
)
_BARE = re.compile(r"(?<![\w/.@-])(?!(?:csv|jsonl|mlflow|wandb|wandb-offline):)[\w.%+-]+:[^\s@/:\"'<>]+@(?=[\w\[])")
"""A user and a password without a scheme."""
_URIS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy")
_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "DATABRICKS_TOKEN",
    "HF_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
    "WANDB_API_KEY",
)
"""Variables of the environment that hold URIs, and those that hold secrets."""

_known: dict[str, None] = {}
"""Secrets of the URIs seen so far, the oldest first."""


class _Parts(NamedTuple):
    scheme: str
    userinfo: str
    """With its `@`; may be empty."""
    rest: str
    parameters: str
    """With the `?` or `;` before them; may be empty."""
    fragment: str
    """With its `#`; may be empty."""
    doubtful: bool
    """Whether who connects would take a part of the password for something else."""


def without_credentials(text: str) -> str:
    """Return a URI, or a text that may quote some, without users, passwords, tokens and all that may be one.

    A URI's secrets are known from then on, and hidden wherever a text repeats them.

    >>> without_credentials("mlflow+https://me:hunter2@host:5000#sweep"), without_credentials("pg://db?a=b&sslmode=off")
    ('mlflow+https://host:5000#sweep', 'pg://db?a=***&sslmode=off')
    >>> without_credentials("mlflow+postgresql://me:Qx/s3 cr@t@host/db#sweep")
    'mlflow+postgresql://host/db#sweep'
    >>> without_credentials('no host "s3 cr@t@host" (token=0123)')
    'no host "***@host" (token=***)'
    """
    parts = _whole(text)
    if parts is not None:
        remember(text)
        return _shown(parts)
    bare = text
    secrets = (*_known, *_of_environment(tuple((name, os.environ.get(name)) for name in (*_URIS, *_SECRETS))))
    if secrets:
        bare = _pattern(secrets).sub(HIDDEN, bare)
    if "://" in bare:
        bare = _IN_TEXT.sub(lambda found: _shown(_split(found[1], found[2])), bare)
        bare = _QUOTED_USERINFO.sub("", bare)
    if "@" in bare:
        bare = _BARE.sub(f"{HIDDEN}@", bare)
    for pattern in (_HEADER, _PAIR, _ENTRY, _LINE):
        bare = pattern.sub(rf"\1{HIDDEN}", bare)
    bare = _SCHEME.sub(lambda found: f"{found[1] or found[2]} {HIDDEN}", bare)
    return text if bare == text else bare  # a sentence that can be translated stays one


def remember(uri: str) -> None:
    """Know a URI's secrets from here on: no text that goes through `without_credentials` repeats them."""
    found = _URI.fullmatch(uri)
    for secret in () if found is None else _secrets(_split(found[1], found[2])):
        _known.pop(secret, None)
        _known[secret] = None
    while len(_known) > _MOST_KNOWN:
        del _known[next(iter(_known))]


def forget() -> None:
    """Know no secrets but the environment's."""
    _known.clear()


def misread(uri: str) -> bool:
    """Return whether who connects would take a part of a password for a host, a port or an experiment's name.

    >>> misread("mlflow+postgresql://me:s3cr#t@host/db#x"), misread("mlflow+postgresql://me:s3cr%23t@host/db#x")
    (True, False)
    >>> misread("mlflow+http://host:5000#/Users/me@corp/x"), misread("mlflow+postgresql://me:Qx/s3cret@host/db#x")
    (False, False)
    """
    found = _URI.fullmatch(uri)
    return found is not None and _split(found[1], found[2]).doubtful


def _whole(text: str) -> _Parts | None:
    """Return a URI's parts; None where a text is no URI, or more than one."""
    found = _URI.fullmatch(text)
    if found is None:
        return None
    if not re.search(r"\s", text):
        return _split(found[1], found[2])
    # With spaces it is a URI where a password has them; else a sentence may begin with one.
    tail = found[2]
    end = _userinfo_end(tail)
    if ":" not in tail[:end] or not re.search(r"\s", tail[:end]) or re.search(r":\s|\n", tail):
        return None
    return None if _is_web(found[1]) and _ADDRESS.match(tail) else _split(found[1], tail)


def _split(scheme: str, tail: str) -> _Parts:
    before, hash_, after = tail.partition("#")
    end = _userinfo_end(before)
    web, doubtful = _is_web(scheme), False
    if "@" in after and not tail.startswith("/"):
        # Is it an experiment's name, or the rest of a password? Names such as /Users/me@corp/x are common.
        host = before[end:]
        later = "#" in after[after.index("@") :]
        elsewhere = not _PORT.match(host)  # no port is `s3cr`
        no_database = not web and "databricks" not in scheme and "/" not in host
        doubtful = later or elsewhere or no_database
        if doubtful:
            end = tail.rindex("@") + 1
            before, hash_, after = tail[end:].partition("#")
            before = tail[:end] + before
    userinfo, rest = before[:end], before[end:]
    if userinfo:
        # Of a database, the first `@` ends the password; on the web the last one does, but a `/` ends both.
        read = _USERINFO.match(before)
        if web:
            doubtful |= re.search(r"[/?\s]", userinfo) is not None and not _ADDRESS.match(before)
        else:
            doubtful |= read is None or read.end() != end
    found = _PARAMETERS.search(rest)
    parameters = ""
    if found is not None and (found[0][0] == "?" or re.match(r";[\w%-]+=", found[0])):
        rest, parameters = rest[: found.start()], found[0]
    return _Parts(scheme, userinfo, rest, parameters, hash_ + after, doubtful)


def _userinfo_end(before: str) -> int:
    """Return where user and password end, with their `@`; 0 where there are none."""
    found = _USERINFO.match(before)
    if found is None:
        return 0
    rest = before[found.end() :]
    question = rest.find("?")
    limit = question if question >= 0 and _is_query(rest[question + 1 :]) else len(rest)
    return found.end() + rest.rfind("@", 0, limit) + 1


def _is_web(scheme: str) -> bool:
    return re.search(r"(?:\A|\W)https?:\Z", scheme) is not None


def _is_query(text: str) -> bool:
    names = [piece.partition("=")[0] for piece in text.split("&") if piece]
    return all(_HARMLESS.fullmatch(name) or _SECRET_NAME.fullmatch(name) for name in names)


def _shown(parts: _Parts) -> str:
    shown = re.sub(r"[^&;?]+", lambda piece: _parameter(piece[0]), parts.parameters)
    return f"{parts.scheme}//{parts.rest}{shown}{parts.fragment}"


def _parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    if not equals:
        return HIDDEN
    if _HARMLESS.fullmatch(unquote(name)) and _PLAIN_VALUE.fullmatch(value):
        return text
    return f"{name if _NAME.fullmatch(name) else HIDDEN}={HIDDEN}"


def _secrets(parts: _Parts) -> Iterator[str]:
    user, colon, password = parts.userinfo.removesuffix("@").partition(":")
    if colon:
        yield password
        yield unquote(password)
        yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        # Who reads the URI otherwise may quote a part: as a port, a host, a database.
        yield from (piece for piece in re.split(r"[@/:?#&\s]", password) if piece)
        yield from (password[at:] for at, sign in enumerate(password, 1) if sign in "@/:?#&")
    elif len(user) >= _TOKEN:
        yield user
        yield unquote(user)
    for piece in re.split(r"[&;?]", parts.parameters):
        name, _, value = piece.partition("=")
        if value and _SECRET_NAME.fullmatch(unquote(name)):
            yield value
            yield unquote_plus(value)


@lru_cache(maxsize=8)
def _of_environment(variables: tuple[tuple[str, str | None], ...]) -> tuple[str, ...]:
    found: list[str] = []
    for name, value in variables:
        if value and name in _SECRETS:
            found.append(value)
        elif value and (parts := _whole(value)) is not None:
            found += _secrets(parts)
    return tuple(found)


@lru_cache(maxsize=8)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds secrets in whatever form a text may have them, the longest first."""
    forms = {form for secret in secrets for form in _forms(secret) if form.strip(HIDDEN + " ")}
    return re.compile("|".join(map(_alone, sorted(forms, key=len, reverse=True))) or r"(?!)")


def _forms(secret: str) -> Iterable[str]:
    forms = {secret, secret.replace("'", "''"), secret.replace("\\", "\\\\").replace("'", "\\'")}
    for safe in ("", "/", " +", "/:", "~()*!'"):
        encoded = quote(secret, safe=safe)
        forms |= {encoded, re.sub(r"%\w\w", lambda found: found[0].lower(), encoded)}
    forms |= {quote_plus(secret), repr(secret)[1:-1], html.escape(secret), html.escape(secret, quote=False)}
    forms |= {html.escape(secret).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"), shlex.quote(secret).strip("'")}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], ascii(secret)[1:-1]}
    return forms


def _alone(form: str) -> str:
    """Return the pattern of a form: a short one only as a value, a word only as a whole, another anywhere."""
    escaped = re.escape(form)
    if len(form) < _SHORT:
        return rf"(?<=[\"'`=])(?:{escaped})(?=[\"'`&;,\s]|\Z)|(?<=:)(?:{escaped})(?=@)"
    if re.fullmatch(r"[A-Za-z]{4,8}", form):
        return rf"(?<!\w){escaped}(?!\w)"
    return escaped
