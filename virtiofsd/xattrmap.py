"""The rule language of --xattrmap.

A rule is `:type:scope:key:prepend:`, or `:map:key:prepend:` for the common case; the first character that is no blank
is its separator. Types: prefix, ok, bad, unsupported; scopes: client, server, all. The first rule that matches
decides, and there must be one for every name.
"""

from virtiofsd._ring.settings import XattrRule

TYPES = ("prefix", "ok", "bad", "unsupported")
SCOPES = {"client": (True, False), "server": (False, True), "all": (True, True)}
KEY_MAX = 255


def parse(text: str) -> tuple[XattrRule, ...]:
    """The rules, `map` taken apart. Raises ValueError with the reason."""
    rules: list[XattrRule] = []
    mapped = False
    rest = text.strip()
    while rest:
        if mapped:
            raise ValueError("map is the last rule, and there is only one")
        separator, rest = rest[0], rest[1:]
        kind, rest = field(rest, separator)
        if kind == "map":
            key, rest = field(rest, separator)
            prepend, rest = field(rest, separator)
            rules += expand(key.encode(), prepend.encode())
            mapped = True
        else:
            scope, rest = field(rest, separator)
            key, rest = field(rest, separator)
            prepend, rest = field(rest, separator)
            if kind not in TYPES:
                raise ValueError(f"rule type {kind!r} is none of {', '.join(TYPES)}, map")
            if scope not in SCOPES:
                raise ValueError(f"rule scope {scope!r} is none of {', '.join(SCOPES)}")
            rules.append(XattrRule(kind, *SCOPES[scope], key.encode(), prepend.encode()))
        if max(len(rules[-1].key), len(rules[-1].prepend)) > KEY_MAX:
            raise ValueError(f"a name has {KEY_MAX} bytes at most")
        rest = rest.lstrip()
    check(rules)
    return tuple(rules)


def field(text: str, separator: str) -> tuple[str, str]:
    """The text up to the separator, and what follows. ValueError where there is none."""
    value, found, rest = text.partition(separator)
    if not found:
        raise ValueError(f"a rule ends without its separator {separator!r}")
    return value, rest


def expand(key: bytes, prepend: bytes) -> list[XattrRule]:
    """What `map` stands for: the prefix both ways, and nothing beside it that could get round it."""
    rules = [XattrRule("prefix", True, True, key, prepend)]
    if not key:
        return [*rules, XattrRule("bad", True, True, b"", b"")]
    return [
        *rules,
        XattrRule("bad", True, False, prepend, b""),  # the guest may not name what it would be called on the host
        XattrRule("bad", False, True, b"", key),  # nor see what the host itself calls so
        XattrRule("ok", True, True, b"", b""),
    ]


def check(rules: list[XattrRule]) -> None:
    """ValueError where some name of either side would match no rule."""
    if not rules:
        raise ValueError("there is no rule")
    for side, matched in (("client", any(rule.client and not rule.key for rule in rules)),
                          ("server", any(rule.server and not rule.prepend for rule in rules))):
        if not matched:
            raise ValueError(f"some names of the {side} match no rule: the last has to match all, as :ok:all::: does")
