"""Benchmarks: this daemon, the reference daemon and the bare host, in turn, in one run. See docs/performance.md."""
