"""An OpenAPI document, from a file or an address, and what its references lead to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from steptool.core.errors import InputError, reason

MAX_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 30.0
FIX = "set world.document in params.yaml to an OpenAPI 3 document: a file of this folder, or its address"


def is_address(document: str) -> bool:
    return document.startswith(("http://", "https://"))


def fetch(document: str) -> str:
    """The text of a document. Raises InputError where it cannot be had."""
    try:
        if not is_address(document):
            return Path(document).read_bytes().decode()
        with httpx.stream("GET", document, timeout=TIMEOUT_S, follow_redirects=True) as response:
            response.raise_for_status()
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES:
                    raise InputError(f"is larger than {MAX_BYTES:,} bytes", where=document, fix=FIX)
            return b"".join(parts).decode()
    except FileNotFoundError as error:
        raise InputError("no such file", where=document, fix=FIX) from error
    except UnicodeDecodeError as error:
        raise InputError("is not written in UTF-8", where=document, fix=FIX) from error
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"cannot be read: {reason(error)}", where=document, fix=FIX) from error


class Document:
    """`text` as JSON or YAML holds it; `where` is its file or address. Raises InputError where it is no OpenAPI 3."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        content = _parsed(text, where)
        version = str(content.get("openapi", content.get("swagger", "")))
        if not version.startswith(("3.0", "3.1")):
            found = f"is of version {version[:20]}" if version else "has no `openapi: 3…`"
            fix = "convert it to OpenAPI 3 (npx swagger2openapi does it)" if version.startswith("2") else FIX
            raise InputError(f"{found}, but OpenAPI 3.0 or 3.1 is needed", where=where, fix=fix)
        if not isinstance(content.get("paths"), dict):
            raise InputError("has no `paths`", where=where, fix=FIX)
        self.content: dict[str, Any] = content
        self.is_3_0 = version.startswith("3.0")
        self._resolver = Registry().with_resource("", Resource.opaque(content)).resolver()

    def lookup(self, reference: str) -> Any:
        """What a $ref leads to. Raises InputError where it leads out of the document, or nowhere."""
        fix = "mend the reference, or put all files of the document into one: npx @redocly/cli bundle"
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise InputError(f"$ref {reference!r:.200} leads out of the document", where=self.where, fix=fix)
        try:
            return self._resolver.lookup(reference).contents
        except Unresolvable as error:
            raise InputError(f"$ref {reference:.200} leads nowhere", where=self.where, fix=fix) from error

    def resolved(self, value: Any) -> dict[str, Any]:
        """`value`, an object of the document, or what it refers to. Raises InputError where it is none."""
        seen: list[Any] = []
        while isinstance(value, dict) and "$ref" in value:
            if value["$ref"] in seen:
                raise InputError(f"$ref {value['$ref']} refers to itself", where=self.where, fix="mend it")
            seen.append(value["$ref"])
            value = self.lookup(value["$ref"])
        if not isinstance(value, dict):
            raise InputError(f"holds {value!r:.80} where an object stands", where=self.where, fix="mend it")
        return value

    def server(self, *places: Mapping[str, Any]) -> str:
        """Address of the service, as the innermost place says that names one: operation, path, document."""
        servers = next((place["servers"] for place in (*places, self.content) if place.get("servers")), None)
        try:
            server: dict[str, Any] = servers[0] if servers else {"url": "/"}
            url = str(server["url"])
            for name, variable in server.get("variables", {}).items():
                url = url.replace(f"{{{name}}}", str(variable["default"]))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError("has `servers` that cannot be read", where=self.where, fix="mend them") from error
        url = urljoin(self.where, url) if is_address(self.where) else url
        if not is_address(url) or "{" in url:
            fix = "set world.base_url in params.yaml to its address"
            raise InputError(f"does not say where the service is, only {url[:80]!r}", where=self.where, fix=fix)
        return url


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text) if text.lstrip().startswith("{") else YAML(typ="safe", pure=True).load(text)
        content = json.loads(json.dumps(content, default=str))  # YAML's dates and numbers as keys are texts in JSON
    except (ValueError, YAMLError, RecursionError) as error:
        raise InputError(f"is neither JSON nor YAML: {reason(error)}", where=where, fix=FIX) from error
    if not isinstance(content, dict):
        raise InputError("is no OpenAPI document: it does not hold an object", where=where, fix=FIX)
    return content
