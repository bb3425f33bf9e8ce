"""Runs behaviours: functions without arguments, each in an empty folder of its own, that raise where a thing is wrong.

    python3 behave.py MODULE [NAME...]      the current folder is on the file system that is to behave

Each gets a process of its own and a minute, and a line of JSON says how it went: name, seconds, error (or null),
skipped (the reason, or null).
"""

import importlib
import inspect
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType

from linux import Skipped

SECONDS = 60


def behaviours(module: ModuleType) -> Mapping[str, Callable[[], None]]:
    """The public functions that the module itself defines, in its order."""
    return {name: function for name, function in vars(module).items()
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")}


def outcome(function: Callable[[], None], folder: str) -> dict[str, str | None]:
    """Runs one behaviour in a child, which may change its identity, its root, and whatever else it wants."""
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            os.umask(0o022)
            signal.alarm(SECONDS)
            function()
            error = skipped = None
        except Skipped as reason:
            error, skipped = None, str(reason)
        except BaseException:
            error, skipped = traceback.format_exc(), None
        os.write(writer, json.dumps({"error": error, "skipped": skipped}).encode()[-60000:])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answer:
        return {"error": f"it was not done after {SECONDS} s" if status == -signal.SIGALRM else f"status {status}",
                "skipped": None}
    return json.loads(answer)


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    functions = behaviours(module)
    for name in sys.argv[2:] or functions:
        begin = time.monotonic()
        result = outcome(functions[name], name)
        print(json.dumps({"name": name, "seconds": round(time.monotonic() - begin, 2), **result}), flush=True)


if __name__ == "__main__":
    main()
