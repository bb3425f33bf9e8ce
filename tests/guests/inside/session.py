"""A process that stays: it does what it is told, line by line, so that what it has open outlives a script.

    python3 session.py FOLDER      reads Python from FOLDER/in, a FIFO; its answer is in FOLDER/out

An answer is the repr of a value, or of the errno's name where an OSError was raised.
"""

import errno
import fcntl
import mmap
import os
import sys
import time

import linux


def main() -> None:
    folder = sys.argv[1]
    names = {"errno": errno, "fcntl": fcntl, "mmap": mmap, "os": os, "time": time, "linux": linux}
    while True:
        with open(f"{folder}/in", encoding="utf-8") as file:
            text = file.read()
        try:
            try:
                code = compile(text, "told", "eval")
            except SyntaxError:
                code = compile(text, "told", "exec")
            answer = repr(eval(code, names))
        except OSError as error:
            answer = repr(errno.errorcode.get(error.errno or 0, str(error)))
        except Exception as error:
            answer = repr(f"{type(error).__name__}: {error}")
        with open(f"{folder}/new", "w", encoding="utf-8") as file:
            file.write(answer)
        os.rename(f"{folder}/new", f"{folder}/out")


if __name__ == "__main__":
    main()
