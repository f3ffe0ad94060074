"""What personal data and secrets look like in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from steptool.core.errors import InputError

EMAIL = re.compile(
    r"(?:(?<=\\[nrtbf/\"])|(?<=\\u[0-9a-fA-F]{4})|(?<![\w.+\-%\\]))"  # the escapes of JSON that was cut off
    r"[\w.+\-]{1,64}(?P<at>@|%40)(?:[^\W_](?:[\w\-]{0,62})\.){1,8}[^\W\d_]{2,24}\b"
)
"""An address, of which `%40` is how the query of a URL has the @."""

SECRET_FIELDS = frozenset(
    {
        *("password", "passwd", "pwd", "passphrase", "secret", "clientsecret", "authorization", "privatekey"),
        *("apikey", "xapikey", "apisecret", "apitoken", "accesskey", "secretkey", "secretaccesskey"),
        *("accesstoken", "refreshtoken", "authtoken", "bearertoken", "idtoken", "sessiontoken"),
    }
)
"""Names of fields, as `plain_name` has them, whose text is a secret whatever it looks like."""

_WORDS = (
    r"password|passwd|pwd|passphrase|secret|client[_-]?secret|(?:x[_-])?api[_-]?key|api[_-]?(?:secret|token)"
    r"|secret[_-]?(?:access[_-]?)?key|access[_-]?(?:key|token)|(?:auth|refresh|bearer|session)[_-]?token|private[_-]?key"
)
KEYED = (
    re.compile(r"(?P<before>[a-z][a-z0-9+.\-]*://[^\s/:@]*:)(?P<secret>[^\s/@]+)(?P<after>@)", re.IGNORECASE),
    re.compile(
        r"(?P<before>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer |basic |token )?)"
        r"(?P<secret>[\w\-.~+/=]{6,})(?P<after>)",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<before>\b(?:bearer|basic)\s+)(?P<secret>(?=[\w\-.~+/]*\d)[\w\-.~+/]{12,}=*)(?P<after>)", re.IGNORECASE
    ),
    re.compile(
        rf"(?P<before>(?<![a-z])(?:\w{{1,40}}[_\-])?(?:{_WORDS})\\?[\"']?\s*[:=]\s*\\?[\"']?)"
        r"(?P<secret>[^\s\"',;&(){}<>$\[\]\\][^\s\"',;&)}\]\\]{5,})(?P<after>)",
        re.IGNORECASE,
    ),
)
"""Secrets that are known by what stands around them."""

KEYS = (
    re.compile(
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
        re.DOTALL,
    ),
    re.compile(r"\beyJ[\w\-]{8,}\.[\w\-]{4,}(?:\.[\w\-]*)?"),
    re.compile(
        r"\b(?:[sprw]k|ant|xox[a-z]|xapp|glpat|hf|npm|ghp|github_pat|shpat|dop_v1|whsec)[_\-]"
        r"(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{16,}"
    ),
    re.compile(r"\bAIza[\w\-]{30,}"),
    re.compile(r"\bya29\.[\w\-]{20,}"),
)
"""Secrets that are known by their own shape, beside those that detect-secrets knows."""

_OF_SERVICES = (
    *("aws", "azure_storage_key", "cloudant", "discord", "github_token", "gitlab_token"),
    *("ibm_cloud_iam", "ibm_cos_hmac", "mailchimp", "npm", "openai", "pypi_token", "sendgrid", "slack"),
    *("softlayer", "square_oauth", "stripe", "telegram_token", "twilio"),
)
"""Plugins of detect-secrets; those that go by entropy would take ids of records for secrets."""


LONG_WORD = re.compile(r"[\w\-+/]{16,}|-----BEGIN ")
"""What every key has; other texts seldom do."""
HINT = re.compile(r"://|pass|pwd|secret|key|token|authorization|bearer|basic", re.IGNORECASE)
"""What stands around a secret of `KEYED`."""


def plain_name(name: str) -> str:
    """`apiKey`, `api_key` and `API-Key` are one name."""
    return "".join(c for c in name.casefold() if c.isalnum())


def field_in_text(names: Iterable[str]) -> re.Pattern[str]:
    """Fields of these names, as `plain_name` has them, in what is no JSON by itself: a line of it, a part that was cut
    off, an object of Python's as it is printed. Its `value` is a text, with the `quote` before it, or a number."""
    spelled = "|".join(r"[_\-. ]?".join(map(re.escape, name)) for name in sorted(names))
    return re.compile(
        rf"(?P<before>(?P<around>\\?[\"'])(?:{spelled})(?P=around)\s*[:=]\s*(?P<quote>\\?[\"'])?)"
        r"(?P<value>(?(quote)(?:(?!(?P=quote))(?:\\.|.))+|-?\d+(?:\.\d+)?))",
        re.IGNORECASE | re.DOTALL,
    )


@lru_cache(maxsize=1)
def keys_of_services() -> tuple[re.Pattern[str], ...]:
    """The patterns of detect-secrets for keys of well-known services."""
    from importlib import import_module

    from detect_secrets.plugins.base import RegexBasedDetector

    found: list[re.Pattern[str]] = []
    for name in _OF_SERVICES:
        for item in vars(import_module(f"detect_secrets.plugins.{name}")).values():
            if isinstance(item, type) and issubclass(item, RegexBasedDetector) and item is not RegexBasedDetector:
                found += item.denylist  # type: ignore[arg-type]
    return tuple(found)


_DIGITS = re.compile(r"\+?\(?\d(?:[ ().\-/\u2010-\u2015\u00a0]{0,3}\d){6,14}")
_CALLING = r"phone|mobile|tele?\b|tel[._ ]|cell|fax|sms|whatsapp|contact|call|dial|number|handy"
_LONGEST_GROUP = 8
"""Digits without anything between them, in a phone number that is written in groups."""
_BEFORE_NUMBER = re.compile(rf"(?:{_CALLING})[^\d\n]{{0,24}}\Z", re.IGNORECASE)
PHONE_FIELD = re.compile(r"phone|mobile|fax|whatsapp|^(?:tel|cell|sms|msisdn)(?:no|number|nr)?$")
"""In the name of a field, as `plain_name` has it, whose digits are a phone number."""


def phones(text: str, region: str, *, is_field: bool = False) -> Iterator[tuple[int, int, str]]:
    """Start, end and E.164 form of the phone numbers in a text that are numbers of their country.

    `region`: the country, by its two letters, of those that are written without +. Digits in a row are no phone number
    by themselves, for they may be an amount: they are one where a word such as `phone` stands before them, where they
    are all of the text, or in a field of phone numbers.
    """
    if not any(_is_phone(found, text, is_field) for found in _DIGITS.finditer(text)):
        return  # it takes a hundred times as long to ask the library
    import phonenumbers

    for match in phonenumbers.PhoneNumberMatcher(text, region or None):
        if (found := _DIGITS.match(text, match.start)) and _is_phone(found, text, is_field):
            yield match.start, match.end, phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164)


def _is_phone(found: re.Match[str], text: str, is_field: bool) -> bool:
    """Whether digits are written as a phone number is, or something says that they are one."""
    written, lengths = found[0], [len(group) for group in re.findall(r"\d+", found[0])]
    if written.startswith("+"):
        return True
    if len(lengths) == 2 and "." in written:  # a decimal number
        return False
    if len(lengths) > 1:
        return max(lengths) <= _LONGEST_GROUP
    is_all = found.start() == len(text) - len(text.lstrip()) and found.end() == len(text.rstrip())
    return is_field or is_all or _BEFORE_NUMBER.search(text[: found.start()][-60:]) is not None


def region_of(written: str) -> str:
    """A country by its two letters, in capitals. Raises InputError where there is none of that name."""
    import phonenumbers

    region = written.strip().upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        fix = "write the country by its two letters, such as US, GB or DE"
        raise InputError(f"{written[:80]!r} is no country", where="--region", fix=fix)
    return region
