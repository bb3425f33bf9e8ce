# What they do, in which units and with which errors, stands in load.pyx.

from collections.abc import Sequence

from frontend.operations import Op, Result
from frontend.virtqueue import Virtqueue

class Generator:
    def __init__(self, queue: Virtqueue, ops: Sequence[Op], *, depth: int = 1, cycle: int = 1, sleeping: bool = True,
                 publish_each: bool = True, gap: float = 0.0, samples: int = ...) -> None: ...
    def run(self, *, count: int = 0, seconds: float = 0.0, timeout: float = 10.0,
            cpu: int | None = None) -> Result: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...

def run_in_one_thread(generators: Sequence[Generator], *, counts: Sequence[int] | None = None, seconds: float = 0.0,
                      linger: float | None = None, timeout: float = 10.0,
                      cpu: int | None = None) -> list[Result]: ...
def run_together(generators: Sequence[Generator], *, cpus: Sequence[int] | None = None, count: int = 0,
                 seconds: float = 0.0, timeout: float = 10.0) -> list[Result]: ...
