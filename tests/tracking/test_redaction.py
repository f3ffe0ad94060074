"""No password and no token in an error, a log, a journal or a tag.

what a user typed                       what is shown
http://me:secret@host:1/path            http://host:1/path
http://me:sec/ret@host                  http://host
http://me:sec?ret@host                  http://***
http://host:1/?token=secret             http://host:1/?***
postgresql://me:secret@db/mlflow        postgresql://db/mlflow
sqlite:////home/me@corp/mlflow.db       the same
"""

from __future__ import annotations

import base64
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from steptool import doctor
from steptool.core.errors import StepToolError
from steptool.tracking.client import connect, mlflow_errors
from steptool.tracking.redaction import public, redact
from steptool.tracking.run import PARENT_VARIABLE, Tracking

PIECES = ("Zq1x", "Zq2y", "Zq3z")
"""No part of a secret may come out, so each of its parts can be found."""

between = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("/#?@:[]%&=+ '\"\\"), max_size=4)
secrets = st.tuples(between, between).map(lambda pair: pair[0].join(PIECES[:2]) + pair[1] + PIECES[2])
addresses = st.sampled_from(
    [
        "http://me:{}@127.0.0.1:1",
        "https://me:{}@127.0.0.1:1/mlflow",
        "http://{}@127.0.0.1:1",
        "http://[{}@127.0.0.1:1",
        "http://127.0.0.1:1/?token={}",
        "http://127.0.0.1:1?a=b&password={}&c=d",
        "http://127.0.0.1:1/#{}",
        "me:{}@127.0.0.1:1",
        "http:/me:{}@127.0.0.1:1",
        "postgresql://me:{}@127.0.0.1:1/mlflow",
        "postgresql://127.0.0.1:1/mlflow?password={}",
        "unknown://me:{}@127.0.0.1",
    ]
)
spellings = st.sampled_from(
    [
        str,
        unquote,
        repr,
        json.dumps,
        quote,
        quote_plus,
        str.lower,
        lambda text: quote(text, safe=""),
        lambda text: repr(quote(text)),
    ]
)


def shows(text: str) -> list[str]:
    return [piece for piece in PIECES if piece.lower() in text.lower()]


@given(secrets, addresses)
@example("Zq1x/Zq2y#Zq3z", "http://me:{}@127.0.0.1:1")
@example("Zq1x@Zq2y?Zq3z", "http://me:{}@127.0.0.1:1")
@example("Zq1x@Zq2y&Zq3z", "http://127.0.0.1:1/?token={}")
def test_address_is_shown_without_its_secret(secret: str, address: str) -> None:
    assert not shows(public(address.format(secret)))


@given(secrets, addresses, spellings)
def test_text_that_quotes_an_address_in_any_spelling_is_shown_without_its_secret(
    secret: str, address: str, spelling: Callable[[str], str]
) -> None:
    uri = address.format(secret)
    # the address or the password within it, whole, or what a parser took for the host or the port
    for quoted in (uri, secret, secret.rpartition("@")[2], secret.partition("/")[0]):
        text = f"cannot connect to {spelling(quoted)}: refused"
        assert not shows(redact(text, uri, environ={}))


@given(secrets)
def test_header_of_a_request_is_hidden(secret: str) -> None:
    header = base64.b64encode(f"me:{unquote(secret)}".encode()).decode()
    assert header not in redact(f"Authorization: Basic {header}", f"http://me:{secret}@host", environ={})


@given(
    secrets, st.sampled_from(["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"])
)
def test_secret_of_the_environment_is_hidden(secret: str, name: str) -> None:
    text = f"refused {secret!r}, that is {base64.b64encode(f'me:{secret}'.encode()).decode()}, {secret}"
    environ = {name: secret, "MLFLOW_TRACKING_USERNAME": "me"}
    hidden = redact(text, environ=environ)
    assert secret not in hidden
    assert not shows(hidden)


def test_proxy_and_addresses_nobody_named_are_hidden_too() -> None:
    environ = {"HTTPS_PROXY": "http://me:Zq1x@proxy:3128"}
    text = "proxy at me:Zq1x@proxy:3128 refused; see s3://key:Zq2y@bucket and https://x/y?X-Signature=Zq3z."
    assert redact(text, environ=environ) == "proxy at ***@proxy:3128 refused; see s3://bucket and https://x/y?***."


def test_what_is_no_secret_stays() -> None:
    for uri in (
        "http://host:5000/mlflow",
        "http://[::1]:5000",
        "sqlite:////home/me@corp/a?b.db",
        "databricks",
        "./runs@x",
    ):
        shown = uri.partition("?")[0] if "?" in uri else uri
        assert public(uri).startswith(shown)
    text = (
        "cannot log at http://127.0.0.1:5000, (sqlite3.OperationalError) disk I/O error (https://sqlalche.me/e/20/e3q8)"
    )
    assert redact(text, "http://a@127.0.0.1:5000", environ={}) == text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secrets, addresses)
@example("Zq1x/Zq2y#Zq3z", "http://me:{}@127.0.0.1:1")
@example("Zq1x[Zq2y]Zq3z", "http://me:{}@127.0.0.1:1")
@example("Zq1xZq2y\\Zq3z", "http://me:{}@127.0.0.1:1")
@example("Zq1x%2FZq2y%23Zq3z", "http://me:{}@127.0.0.1:1")
@example("Zq1x%2FZq2y%23Zq3z", "postgresql://me:{}@127.0.0.1:1/mlflow")
def test_secret_is_in_no_error_and_in_no_traceback(secret: str, address: str) -> None:
    """Nothing listens at port 1: the address is refused, or cannot be reached."""
    uri = address.format(secret)
    with mock.patch.dict(os.environ, {"NO_PROXY": "*"}):
        try:
            connect(uri, "test")
        except StepToolError as error:
            said = "".join(traceback.format_exception(error))
        check = doctor.tracking(uri)
    assert not shows(said)
    assert not check.ok
    assert not shows(check.found + check.fix)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=secrets, address=addresses)
def test_secret_is_in_no_file_that_a_stage_leaves(
    secret: str, address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    uri, root = address.format(secret), tmp_path_factory.mktemp("checkout")
    with mock.patch.dict(os.environ, {PARENT_VARIABLE: "p"}):
        tracking = Tracking(uri, "test", root=root)
        with pytest.raises(ValueError), tracking.stage("train") as run:  # noqa: PT012 - the text is the case
            run.params({"note": "kept"})
            raise ValueError(f"no answer from {uri}, {secret!r}")
    kept = "".join(path.read_text() for path in root.rglob("*") if path.is_file())
    assert "kept" in kept
    assert not shows(kept + str(next(root.rglob("*.jsonl"))))


def test_cause_without_a_secret_is_kept_for_the_traceback() -> None:
    with pytest.raises(StepToolError) as caught, mlflow_errors("http://host", "log"):
        raise OSError("no route to host")
    assert isinstance(caught.value.__cause__, OSError)


def test_folder_named_like_an_address_is_shown(tmp_path: Path) -> None:
    assert Tracking(None, "test", root=tmp_path / "me@corp").public_uri.endswith("/me@corp/mlflow.db")
