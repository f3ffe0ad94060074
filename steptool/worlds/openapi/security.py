"""Authentication as the document says: the secret of each security scheme from an environment variable.

    securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}      STEPTOOL_AUTH_KEY=…
    http basic                                                           STEPTOOL_AUTH_…=user:password
    http bearer, oauth2, openIdConnect                                   STEPTOOL_AUTH_…=the token

A secret is read when a call needs it, so that recordings can be replayed without any.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any

from steptool.core.errors import InputError
from steptool.core.secrets import Secrets
from steptool.worlds.openapi.document import Document
from steptool.worlds.openapi.operations import Operation
from steptool.worlds.openapi.request import Parts

PREFIX = "STEPTOOL_AUTH_"
BEARER = ("oauth2", "openIdConnect")


class Security:
    """`variables`: names of the environment variables of some schemes; those of the others are PREFIX and their name.

    Raises InputError for a scheme that the document does not have.
    """

    def __init__(self, document: Document, variables: Mapping[str, str], secrets: Secrets) -> None:
        components = document.resolved(document.content.get("components", {}))
        listed = document.resolved(components.get("securitySchemes", {}))
        self._schemes = {name: document.resolved(scheme) for name, scheme in listed.items()}
        self._where, self._variables, self._secrets = document.where, variables, secrets
        for name in variables:
            if name not in self._schemes:
                known = ", ".join(self._schemes) or "it has none"
                raise InputError(f"has no security scheme {name!r}", where=document.where, fix=f"use one of: {known}")

    def check(self, operation: Operation) -> None:
        """Raise InputError where nothing here can authenticate a call of the operation."""
        ways = [self._unknown(way) for way in operation.security]
        if ways and all(ways):
            found = f"{operation.method} {operation.path} needs the security scheme {ways[0]!r}, which is not supported"
            fix = "use apiKey, http basic, http bearer, oauth2 or openIdConnect, or name it in world.leave_out"
            raise InputError(found, where=self._where, fix=fix)

    def sign(self, operation: Operation, parts: Parts) -> None:
        """Add the secrets of the first way of authentication whose variables are all set.

        Raises WorldError, naming the variable, where there is none.
        """
        ways = [way for way in operation.security if not self._unknown(way)]
        is_set = (way for way in ways if all(os.environ.get(self._variable(name)) for name in way))
        for name in next(is_set, ways[0] if ways else {}):
            self._add(name, parts)

    def _variable(self, scheme: str) -> str:
        return self._variables.get(scheme) or PREFIX + re.sub(r"[^A-Za-z0-9]", "_", scheme).upper()

    def _unknown(self, way: Mapping[str, Any]) -> str | None:
        """The first scheme of a way that cannot be used."""
        return next((name for name in way if _kind(self._schemes.get(name, {})) is None), None)

    def _add(self, name: str, parts: Parts) -> None:
        scheme, variable = self._schemes[name], self._variable(name)
        secret = self._secrets.read(variable, f"security scheme {name} of {self._where}")
        kind, key = _kind(scheme), str(scheme.get("name", ""))
        if kind == "basic":
            encoded = base64.b64encode(secret.encode()).decode()
            self._secrets.add(variable, [encoded, secret.partition(":")[2] or secret])
            parts.headers["Authorization"] = f"Basic {encoded}"
        elif kind == "bearer":
            parts.headers["Authorization"] = f"Bearer {secret}"
        elif kind == "query":
            parts.add_query(key, secret)
        elif kind == "cookie":
            parts.add_cookie(key, secret)
        else:
            parts.headers[key] = secret


def _kind(scheme: Mapping[str, Any]) -> str | None:
    """header, query, cookie, bearer or basic; None for what is not supported."""
    if scheme.get("type") in BEARER:
        return "bearer"
    if scheme.get("type") == "http":
        kind = str(scheme.get("scheme", "")).lower()
        return kind if kind in ("bearer", "basic") else None
    where = scheme.get("in")
    return str(where) if scheme.get("type") == "apiKey" and where in ("header", "query", "cookie") else None
