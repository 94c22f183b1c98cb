"""Credentials: no password, token or signed query comes out of the one function that everything shown goes through."""

from __future__ import annotations

import base64
import html
import json
import pickle
import traceback
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote

import pandas as pd
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from bimix_tracking import Observations, open_source, open_tracker
from bimix_tracking.credentials import forget, misread, remember, without_credentials
from bimix_tracking.data.pooling import Note
from bimix_tracking.errors import BimixError, MissingDependencyError, SourceError
from bimix_tracking.messages import said

HOSTILE = (
    "Qx/s3cret",
    "p@ss w0rd",
    "a:b@c9",
    "100%25x",
    "s3cr#t",
    "s3cr?t=1",
    "&token=tok3n",
    "pä$$wörd",
    "qu'o\"te\\d1",
    "<b>8old</b>",
    "p@s/s@w0rd",
    "12345/67@89",
    "5432/x@y9",
    "sp ace1",
)
FLAVOURS = ("mlflow+postgresql", "mlflow+mysql+pymysql", "mlflow+http", "mlflow+https", "toy", "jdbc:postgresql")


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    forget()
    yield
    forget()


def pieces(password: str) -> list[str]:
    """Return what of a password must not be seen: itself, and its parts between the signs that end one."""
    parts = [password]
    for sign in "@/:?#&= ":
        parts = [piece for part in parts for piece in part.split(sign)]
    return [password, unquote(password), *(part for part in parts if len(part) > 2)]


@pytest.mark.parametrize("password", HOSTILE)
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("written", [str, quote, quote_plus], ids=["raw", "encoded", "form"])
def test_no_part_of_a_password_is_left_of_a_uri(password: str, flavour: str, written: type) -> None:
    shown = without_credentials(f"{flavour}://me:{written(password)}@db.host:5432/runs?sslmode=require#my sweep")

    assert shown == f"{flavour}://db.host:5432/runs?sslmode=require#my sweep"


@pytest.mark.parametrize("password", HOSTILE)
def test_no_text_repeats_a_password_that_was_seen(password: str) -> None:
    uri = f"mlflow+postgresql://me:{password}@db.host/runs#sweep"
    remember(uri)

    said = [
        f"no answer from {uri}",
        f'could not translate host name "{password.partition("@")[2]}@db.host" to address',
        f'invalid port number: "{password.partition("/")[0]}"',
        f"{quote(password)} {quote_plus(password)} {quote(password, safe='')} {quote(password).lower()}",
        json.dumps({"dsn": password}),
        json.dumps({"dsn": password}, ensure_ascii=False),
        html.escape(password),
        repr([password]),
        yaml.safe_dump({"dsn": f"x{password}y"}),
        f"dsn='{password.replace(chr(39), chr(39) * 2)}'",
        "Authorization: Basic " + base64.b64encode(f"me:{password}".encode()).decode(),
        base64.b64encode(f"me:{password}".encode()).decode(),
    ]

    for text in map(without_credentials, said):
        assert not [piece for piece in pieces(password) if len(piece) > 3 and piece in html.unescape(text)], text
        assert "my" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://key0123456789abcdef@api.wandb.ai", "https://api.wandb.ai"),
        (
            "s3://bucket/x?X-Amz-Signature=ab12&X-Amz-Credential=AK%2F1&versionId=3",
            "s3://bucket/x?X-Amz-Signature=***&",
        ),
        (
            "mlflow+postgresql:///db?host=/run/pg&user=me&password=a%20b#x",
            "mlflow+postgresql:///db?host=/run/pg&user=***&",
        ),
        (
            "jdbc:sqlserver://h:1433;databaseName=x;user=sa;password=y",
            "jdbc:sqlserver://h:1433;databaseName=x;user=***;",
        ),
        ("x://h/db?pass%77ord=abc&application_name=p@ssw", "x://h/db?pass%77ord=***&application_name=***"),
        ("x://h/db?sslmode=a;b", "x://h/db?sslmode=a;***"),
        ("host=db user=me password='a \\' b' dbname=x", "host=db user=me password=*** dbname=x"),
        ('{"password": "a b", "token": "c\\"d"}', '{"password": ***, "token": ***}'),
        ("api_key=abc, AWSAccessKeyId=AKIA1", "api_key=***, AWSAccessKeyId=***"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("it sent 'Authorization': 'Basic bWU6cHc='", "it sent 'Authorization': ***'"),
        ("curl -H Bearer eyJhbGciOi", "curl -H Bearer ***"),
        ("password: hunter2\nhost: db", "password: ***\nhost: db"),
        ("login as me:pw1@db.host failed", "login as ***@db.host failed"),
        ("mlflow+postgresql:me:pw1@db.host/x", "mlflow+postgresql:***@db.host/x"),
        ("wandb:https://me:pw1@host/team", "wandb:https://host/team"),
        ('{"uri":"http://h:5000","mail":"me@corp"}', '{"uri":"http://h:5000","mail":"me@corp"}'),
        ("postgresql://me:pa\"ss'w@h/db says no", "postgresql://h/db says no"),
    ],
)
def test_what_is_a_credential_without_having_been_seen(text: str, shown: str) -> None:
    assert without_credentials(text).startswith(shown)


@pytest.mark.parametrize(
    "text",
    [
        "mlflow:team@corp",
        "mlflow+http://host:5000#/Users/me@corp/x",
        "mlflow+databricks://profile#/Users/me@corp/x",
        "mlflow+sqlite:////data/my runs/x@2.db#sweep",
        "mlflow+http://[::1]:5000#x",
        "csv:a@b.csv: there is no file a@b.csv",
        "jsonl:/data/x:y@z",
        "wandb:team/proj/sweeps/ab12",
        "http://127.0.0.1:5000/#/experiments/1/runs/ab?workflowType=machine_learning",
        "domain 'web' has 3 tokens: token 5 of tokenizer=bytes; bytes per token: 3.2",
        "tokens=1e9, eval_tokens: 5, author=me",
        "password authentication failed for user",
        "s3://bucket/a@b/c",
        "https://github.com/x/y@v1",
        "the sweep's runs (4) at 10:30: 12:30 @noon",
    ],
)
def test_what_is_harmless_stays(text: str) -> None:
    assert without_credentials(text) == text


word = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).filter(lambda s: s.strip("-"))
secret = st.text(min_size=6, max_size=20).filter(
    lambda s: not set(s) & set("\r\n*") and s.strip() == s and len(set(s)) > 3
)


@given(word, secret, word, word, word, st.sampled_from(FLAVOURS), st.booleans())
def test_a_generated_password_never_comes_out(
    user: str, password: str, host: str, database: str, name: str, flavour: str, encoded: bool
) -> None:
    forget()
    assume(password not in f"{flavour}://{host}/{database}?sslmode=off#{name}")
    told = quote(password, safe="") if encoded else password
    # A name and a text around it, so that only the password can bring out what it is
    uri = f"{flavour}://{user}:{told}@{host}/{database}?sslmode=off&x={quote(password, safe='')}#{name}"

    remember(uri)
    shown = without_credentials(uri)
    text = without_credentials(f"no answer: ({uri}) and {json.dumps(password)}, {password!r}.")

    assert password not in shown
    assert password not in text
    if encoded or not set(password) & set("@#?/: "):
        assert shown == f"{flavour}://{host}/{database}?sslmode=off&x=***#{name}"
    assert without_credentials(shown) == shown


@given(st.text("ab:/@?#& %", max_size=12), st.text("ab/:", max_size=5))
def test_whatever_sqlalchemy_takes_for_a_password_is_hidden(password: str, database: str) -> None:
    forget()
    uri = f"postgresql://zz:{password}@host/{database}"
    try:
        read = make_url(uri)
    except ValueError:  # a port that is not a number
        return
    assume(read.password and len(read.password.strip()) > 1)
    remember(uri)

    assert f":{read.password}@" not in without_credentials(uri)
    assert "zz" not in without_credentials(uri)


def test_a_short_password_is_hidden_where_it_is_a_value_and_words_stay_whole() -> None:
    remember("x://me:a@h")
    remember("x://me:web@h")
    remember("x://me:host@h")

    assert without_credentials("a host says 'a' (password=a): x://me:a@h") == "a *** says '***' (password=***): x://h"
    assert without_credentials("hosts of a web page: 'web'") == "hosts of a web page: '***'"


def test_what_the_environment_holds_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:Env1/pw@h")
    monkeypatch.setenv("PGPASSWORD", "pgp4ss")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)

    shown = without_credentials(f"Env1/pw and pgp4ss and {'k' * 40}")

    assert shown == "*** and *** and ***"


@pytest.mark.parametrize(
    "uri",
    [
        "mlflow+postgresql://me:s3cr#t@host/db#x",
        "mlflow+postgresql://me:s3cr#t@host/db",
        "mlflow+postgresql://me:12#t@host/db",
        "mlflow+postgresql://me:p@s#s@host/db#x",
        "mlflow+postgresql://me:p@ss w0rd@host/db#x",
        "mlflow+http://me:s3cr#t@host:5000#x",
        "mlflow+http://me:Qx/s3cret@host:5000#x",
    ],
)
@pytest.mark.parametrize("opening", [open_tracker, open_source])
def test_a_password_that_its_reader_would_cut_in_two_is_refused(uri: str, opening: object) -> None:
    assert callable(opening)

    with pytest.raises(SourceError) as told:
        opening(uri)

    shown = "".join(traceback.format_exception(told.value))
    assert "has a password that its reader would cut in two: write @, #, / and ? in it as %40" in str(told.value)
    assert not [piece for piece in ("s3cr", "t@", "ss w0", "host", "Qx") if piece in str(told.value)], shown
    assert misread(uri)


def test_an_error_of_ours_holds_no_credential_wherever_its_text_comes_from() -> None:
    remember("x://me:Qx/s3cret@h")

    error = SourceError("the server says: no access for Qx%2Fs3cret at x://me:Qx/s3cret@h")

    assert str(error) == "the server says: no access for *** at x://h"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # our own
    assert str(pickle.loads(pickle.dumps(MissingDependencyError("ray", extra="ray")))).startswith("ray is not")  # noqa: S301
    assert BimixError(sentence := said("{a} is", a="x")).args[0] is sentence


def test_observations_and_notes_keep_no_credential_of_any_source() -> None:
    table = pd.DataFrame({"a": [0.2, 0.8], "b": [0.8, 0.2], "tokens": [1e6, 1e6], "la": [3.0, 2.5]})

    obs = Observations.from_wide(
        table, proportions=["a", "b"], losses={"a": "la"}, tokens="tokens", source="toy://me:Qx/s3cret@host/x?key=1"
    )

    assert obs.source == "toy://host/x?key=***"
    assert Note("excluded", "the server says toy://me:Qx/s3cret@host", 1).reason == "the server says toy://host"
