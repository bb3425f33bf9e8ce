"""What is inside the daemon's process, by pytest-benchmark: python -m pytest bench. Times are for LOOPS calls."""

from collections.abc import Callable
from typing import Any

from bench.micro import Guest, Inodes

LOOPS = 1000
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
