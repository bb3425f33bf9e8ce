"""What is inside the daemon's process, by pytest-benchmark: python -m pytest bench. Times are for LOOPS calls.

By several threads each does MANY. Where they share nothing it takes as long as with one, as long as there are CPUs.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bench.micro import Guest, Handles, Inodes

LOOPS = 1000
MANY = 100_000
KNOWN = 500
Benchmark = Callable[..., Any]

GETATTR = (16, 104)         # bytes of arguments, and of the reply's
READ_4K = (40, 4096)
READ_1M = (40, 1 << 20)
WRITE_128K = (128 << 10, 8)


def test_chain_of_a_getattr(benchmark: Benchmark) -> None:
    benchmark(Guest(1, *GETATTR).walk, LOOPS)


def test_chain_of_a_getattr_among_64_regions(benchmark: Benchmark) -> None:
    benchmark(Guest(64, *GETATTR).walk, LOOPS)


def test_chain_of_a_read_of_4k(benchmark: Benchmark) -> None:
    benchmark(Guest(1, *READ_4K).walk, LOOPS)


def test_chain_of_a_read_of_1m_in_scattered_pages(benchmark: Benchmark) -> None:
    benchmark(Guest(2, *READ_1M).walk, LOOPS)


def test_chain_of_a_write_of_128k_in_scattered_pages(benchmark: Benchmark) -> None:
    benchmark(Guest(2, *WRITE_128K).walk, LOOPS)


def test_address_in_one_region(benchmark: Benchmark) -> None:
    benchmark(Guest(1, *GETATTR).translate, LOOPS)


def test_address_in_one_of_8_regions(benchmark: Benchmark) -> None:
    benchmark(Guest(8, *GETATTR).translate, LOOPS)


def test_address_in_one_of_256_regions(benchmark: Benchmark) -> None:
    benchmark(Guest(256, *GETATTR).translate, LOOPS)


def test_reply_of_attributes(benchmark: Benchmark) -> None:
    benchmark(Guest(1, *GETATTR).answer, LOOPS)


def test_node_to_inode(benchmark: Benchmark, tmp_path: Any) -> None:
    benchmark(Inodes(str(tmp_path), KNOWN).find_nodes, LOOPS)


def test_inode_number_to_node(benchmark: Benchmark, tmp_path: Any) -> None:
    benchmark(Inodes(str(tmp_path), KNOWN).find_numbers, LOOPS)


# By threads side by side, as queues are served

@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def by_threads(request: pytest.FixtureRequest, benchmark: Benchmark) -> Any:
    """Times a call, made by so many threads at once."""
    with ThreadPoolExecutor(request.param) as pool:
        def time(call: Callable[[int, int], None]) -> None:
            benchmark(lambda: list(pool.map(lambda thread: call(MANY, thread * MANY), range(request.param))))
        yield time


def test_nodes_to_inodes(by_threads: Any, tmp_path: Any) -> None:
    by_threads(Inodes(str(tmp_path), KNOWN).find_nodes)


def test_inode_numbers_to_nodes(by_threads: Any, tmp_path: Any) -> None:
    by_threads(Inodes(str(tmp_path), KNOWN).find_numbers)


def test_files_opened_and_released(by_threads: Any) -> None:
    by_threads(Handles().open_and_release)
