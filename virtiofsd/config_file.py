"""--config FILE: the options of one share in TOML, by their names without the dashes."""

import tomllib
from typing import Any

from virtiofsd.errors import OptionError, StartError, reason, shown, suggestion
from virtiofsd.options import OPTIONS

BY_KEY = {option.name[2:]: option for option in OPTIONS if option.in_file}
OPPOSITES = {option.opposite[2:]: option for option in OPTIONS if option.opposite}


def read(path: str) -> list[tuple[str, str | None]]:
    """Options with their words, as the command line would have them. OptionError, StartError."""
    place = f"--config {shown(path)}"
    try:
        with open(path, "rb") as file:
            entries = tomllib.load(file)
    except OSError as error:
        raise StartError(f"{place}: {reason(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{place}: {shown(str(error))}") from None
    found: list[tuple[str, str | None]] = []
    for key, value in entries.items():
        try:
            found += words_of(key, value)
        except ValueError as error:
            raise OptionError(f"{place}: {shown(key)}: {error}") from None
    return found


def words_of(key: str, value: Any) -> list[tuple[str, str | None]]:
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(entry, dict) for entry in value)):
        raise ValueError("a file with a list of shares is not served: it has the options of one share")
    if key in OPPOSITES:
        raise ValueError(f"it is {OPPOSITES[key].name[2:]} = false here")
    option = BY_KEY.get(key)
    if option is None:
        raise ValueError(f"there is no such option for a file{suggestion(key, BY_KEY)}")
    if option.parse is None:
        if not isinstance(value, bool):
            raise ValueError("it is true or false")
        name = option.name if value else option.opposite
        return [(name, None)] if name else []
    if isinstance(value, list):
        if not option.repeats:
            raise ValueError("it is not a list")
        return [(option.name, word(entry)) for entry in value]
    if isinstance(value, bool) and option.bare is not None:
        return [(option.name, option.bare if value else option.default)]
    return [(option.name, word(value))]


def word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("it is a text or a number")
    return str(value)
