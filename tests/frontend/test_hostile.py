"""The catalogue of hostile chains and requests on a reference back-end, as far as one can ask it of any."""

from collections.abc import Iterator

import pytest

from frontend.back_end import BackEnd
from frontend.device import VirtioFs
from frontend.hostile import BROKEN, CATALOGUE, EMPTY, KINDS, OK, Bench, Outcome, layout, names

# The reference knows no buffer that lies in two regions.
GOOD = [name for name in names() if CATALOGUE[name].allowed == {OK} and "adjacent" not in name]


@pytest.fixture
def bench(reference: BackEnd) -> Iterator[Bench]:
    with VirtioFs(reference.socket, memory=layout()) as device:
        yield Bench(device, patience=0.5)


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_good_ones_are_answered(bench: Bench, name: str) -> None:
    for seed in range(3):
        outcome = bench.run(name, seed)
        assert outcome in CATALOGUE[name], outcome.detail


def test_a_bench_goes_on_after_a_reset(bench: Bench) -> None:
    bench.fuse.submit(3, 1, bytes(16), out_size=104, publish=False)
    bench.reset()
    assert bench.run("header_padding") == OK
    assert bench.device.queues[1].in_flight == []


def test_the_catalogue_says_what_each_entry_is() -> None:
    assert len(CATALOGUE) > 200
    assert all(entry.meaning and entry.allowed and entry.kind in KINDS for entry in CATALOGUE.values())
    assert set(names(packed=True)) < set(CATALOGUE) and len(names(KINDS[0])) > 40


def test_outcomes_compare_with_words_and_numbers() -> None:
    entry = CATALOGUE["empty_table"]
    assert Outcome(EMPTY) in entry and Outcome(22) in entry
    assert Outcome(BROKEN) in entry and Outcome(OK) not in entry and Outcome(2) not in entry
    assert str(Outcome(22)) == "EINVAL"
