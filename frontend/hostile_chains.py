"""Chains that no driver should make, and a few odd ones that every device must take."""

import errno
import random
import threading

from frontend import fuse_abi as abi
from frontend.fuse import ROOT
from frontend.fuse_abi import Opcode
from frontend.hostile_bench import (
    BAD_CHAIN,
    BAD_REQUEST,
    BROKEN,
    EMPTY,
    INDIRECT,
    MALFORMED,
    NEXT,
    OK,
    SILENT,
    WRITE,
    Allowed,
    Bench,
    Desc,
    Outcome,
    entry,
)

KIND = "chain"
TOP = 1 << 64
REPLY = abi.OUT_HEADER.size + abi.ATTR_OUT.size
# The ring itself is nonsense: the device may stop, ignore it or make something of it.
BAD_RING: Allowed = frozenset({BROKEN, EMPTY, SILENT, OK, errno.EIO, errno.EINVAL})


def request(bench: Bench) -> Desc:
    """A good GETATTR of the root, in one piece."""
    data = bench.getattr_request()
    return Desc(bench.put(data), len(data))


def reply(bench: Bench, length: int = REPLY) -> Desc:
    return Desc(bench.room(length), length, WRITE)


# Odd, and good

@entry(KIND, OK)
def request_of_single_bytes(bench: Bench, _: random.Random) -> Outcome:
    """Every byte of the request in a descriptor of its own."""
    data = bench.getattr_request()
    out = reply(bench)
    return bench.indirect(*(Desc(bench.put(data[i:i + 1]), 1) for i in range(len(data))), out, reply=out.addr)


@entry(KIND, OK)
def reply_in_odd_pieces(bench: Bench, rng: random.Random) -> Outcome:
    """The reply's header and attributes cut at random, adjacent and not."""
    start, cuts = bench.room(REPLY), sorted(rng.sample(range(1, REPLY), 5))
    pieces = [Desc(start + a, b - a, WRITE) for a, b in zip([0, *cuts], [*cuts, REPLY], strict=True)]
    return bench.indirect(request(bench), *pieces, reply=start)


@entry(KIND, OK)
def buffer_across_adjacent_regions(bench: Bench, _: random.Random) -> Outcome:
    """One buffer that begins in one region and ends in the next."""
    data, edge = bench.getattr_request(), bench.memory.regions[0].end
    bench.memory.write(edge - 20, data)
    out = reply(bench)
    return bench.chain(Desc(edge - 20, len(data)), out, reply=out.addr)


@entry(KIND, OK)
def reply_across_adjacent_regions(bench: Bench, _: random.Random) -> Outcome:
    """The reply's buffer begins in one region and ends in the next."""
    edge = bench.memory.regions[0].end
    return bench.chain(request(bench), Desc(edge - 24, REPLY, WRITE), reply=edge - 24)


@entry(KIND, OK)
def chain_as_long_as_the_ring(bench: Bench, _: random.Random) -> Outcome:
    """A direct chain of all the ring's descriptors."""
    size = bench.queue.size
    data = bench.getattr_request()
    start, out = bench.put(data), bench.room(REPLY)
    first = [Desc(start + i, 1) for i in range(len(data) - 1)] + [Desc(start + len(data) - 1, 1)]
    left = size - len(first)
    last = [Desc(out + i, 1, WRITE) for i in range(left - 1)] + [Desc(out + left - 1, REPLY - left + 1, WRITE)]
    return bench.chain(*first, *last, reply=out)


@entry(KIND, OK, BAD_CHAIN)
def empty_descriptors(bench: Bench, rng: random.Random) -> Outcome:
    """Descriptors of length 0 among good ones, with addresses that mean nothing."""
    out = reply(bench)
    empty = Desc(rng.choice([0, 1, TOP - 1, out.addr]), 0)
    return bench.chain(empty, request(bench), empty, Desc(empty.addr, 0, WRITE), out, reply=out.addr)


@entry(KIND, OK, BAD_CHAIN)
def unknown_descriptor_flags(bench: Bench, _: random.Random) -> Outcome:
    """Flags that no feature defines."""
    first, out = request(bench), reply(bench)
    return bench.chain(Desc(first.addr, first.length, 0x78), Desc(out.addr, out.length, 0x78 | WRITE), reply=out.addr)


@entry(KIND, OK, BAD_CHAIN)
def table_at_an_odd_address(bench: Bench, _: random.Random) -> Outcome:
    """An indirect table that is not aligned."""
    out = reply(bench)
    address, length = bench.table([request(bench), out], pad=7)
    return bench.chain(Desc(address, length, INDIRECT), reply=out.addr)


@entry(KIND, OK)
def writable_indirect_descriptor(bench: Bench, _: random.Random) -> Outcome:
    """WRITE on the descriptor of the table: to be ignored."""
    out = reply(bench)
    address, length = bench.table([request(bench), out])
    return bench.chain(Desc(address, length, INDIRECT | WRITE), reply=out.addr)


@entry(KIND, OK, ring="split")
def direct_then_indirect(bench: Bench, _: random.Random) -> Outcome:
    """A chain that begins with a direct descriptor and ends in a table."""
    out = reply(bench)
    address, length = bench.table([out])
    return bench.chain(request(bench), Desc(address, length, INDIRECT), reply=out.addr)


@entry(KIND, OK)
def kicks_for_nothing(bench: Bench, rng: random.Random) -> Outcome:
    """Many kicks without a buffer, then a good request."""
    for _ in range(rng.randrange(100, 1000)):
        bench.queue.kick(force=True)
    out = reply(bench)
    return bench.chain(request(bench), out, reply=out.addr)


@entry(KIND, OK)
def suppression_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Random bits where the driver says which calls it wants; polled, the reply must come all the same."""
    bench.queue.set_avail_flags(rng.randrange(4) | (rng.getrandbits(14) << 2))
    bench.queue.set_used_event(rng.getrandbits(16))
    out = reply(bench)
    outcome = bench.chain(request(bench), out, reply=out.addr)
    bench.queue.set_avail_flags(0)
    return outcome


@entry(KIND, OK, MALFORMED, BAD_REQUEST)
def reply_over_the_request(bench: Bench, _: random.Random) -> Outcome:
    """The reply's buffer is the request's own memory."""
    data = bench.getattr_request()
    where = bench.room(256)
    bench.memory.write(where, data)
    return bench.chain(Desc(where, len(data)), Desc(where, REPLY, WRITE), reply=where)


# Loops and lengths

@entry(KIND, BAD_CHAIN, ring="split")
def self_loop(bench: Bench, _: random.Random) -> Outcome:
    """A descriptor whose next is itself."""
    index, first = bench.queue.take(), request(bench)
    bench.queue.write_desc(index, first.addr, first.length, NEXT, index)
    bench.queue.push(index)
    return bench.show(index, [index])


@entry(KIND, BAD_CHAIN, ring="split")
def loop_of_two(bench: Bench, _: random.Random) -> Outcome:
    """Two descriptors that name each other."""
    indices = [bench.queue.take(), bench.queue.take()]
    for index, following in zip(indices, reversed(indices), strict=True):
        first = request(bench)
        bench.queue.write_desc(index, first.addr, first.length, NEXT, following)
    bench.queue.push(indices[0])
    return bench.show(indices[0], indices)


@entry(KIND, BAD_CHAIN, ring="split")
def loop_of_the_whole_ring(bench: Bench, _: random.Random) -> Outcome:
    """All descriptors in a circle."""
    out = reply(bench)
    indices = [bench.queue.take() for _ in range(bench.queue.num_free)]
    for place, index in enumerate(indices):
        bench.queue.write_desc(index, out.addr, 1, NEXT, indices[(place + 1) % len(indices)])
    bench.queue.push(indices[0])
    return bench.show(indices[0], indices)


@entry(KIND, BAD_CHAIN, ring="split")
def loop_of_empty_descriptors(bench: Bench, _: random.Random) -> Outcome:
    """A loop that never adds a byte."""
    index = bench.queue.take()
    bench.queue.write_desc(index, 0, 0, NEXT | WRITE, index)
    bench.queue.push(index)
    return bench.show(index, [index])


@entry(KIND, BAD_CHAIN, ring="split")
def next_past_the_table(bench: Bench, rng: random.Random) -> Outcome:
    """A next that is not an index of the ring."""
    first = request(bench)
    return bench.chain(Desc(first.addr, first.length, 0, rng.choice([bench.queue.size, 0x7fff, 0xffff])), reply(bench))


@entry(KIND, BAD_RING, ring="split")
def head_past_the_table(bench: Bench, rng: random.Random) -> Outcome:
    """An available entry that is not an index of the ring."""
    head = rng.choice([bench.queue.size, 0x8000, 0xffff])
    bench.queue.push(head)
    return bench.show(head)


@entry(KIND, BAD_RING, ring="split")
def same_head_twice(bench: Bench, _: random.Random) -> Outcome:
    """One chain made available twice in a batch."""
    head, indices = bench.place([request(bench), reply(bench)])
    bench.queue.push(head)
    bench.dirty = True
    return bench.show(head, indices)


@entry(KIND, BAD_CHAIN, OK)
def table_longer_than_the_ring(bench: Bench, rng: random.Random) -> Outcome:
    """An indirect table with more entries than the ring has."""
    out = reply(bench)
    data = bench.getattr_request()
    start = bench.put(data)
    count = bench.queue.size * rng.choice([1, 2, 8])
    return bench.indirect(Desc(start, len(data)), *(Desc(start, 0) for _ in range(count)), out, reply=out.addr)


@entry(KIND, BAD_CHAIN, OK)
def sum_past_32_bits(bench: Bench, _: random.Random) -> Outcome:
    """Readable descriptors whose lengths add up to more than 4 GiB, all over the same memory."""
    region, out = bench.memory.regions[0], reply(bench)
    count = (1 << 32) // region.size + 1
    return bench.indirect(request(bench), *(Desc(0, region.size) for _ in range(count)), out, reply=out.addr)


@entry(KIND, BAD_CHAIN, OK)
def reply_room_past_32_bits(bench: Bench, _: random.Random) -> Outcome:
    """Writable descriptors whose lengths add up to more than 4 GiB."""
    region, out = bench.memory.regions[1], reply(bench)
    count = (1 << 32) // region.size + 1
    return bench.indirect(request(bench), out, *(Desc(region.guest_addr, region.size, WRITE) for _ in range(count)),
                          reply=out.addr)


@entry(KIND, BAD_CHAIN)
def more_bytes_than_pages_can_have(bench: Bench, _: random.Random) -> Outcome:
    """Writable descriptors that name the same memory again and again, 512 MiB in all."""
    region, out = bench.memory.regions[1], reply(bench)
    count = (512 << 20) // region.size
    return bench.indirect(request(bench), out, *(Desc(region.guest_addr, region.size, WRITE) for _ in range(count)),
                          reply=out.addr)


# Indirect tables

def bad_table(bench: Bench, address: int | None, length: int | None, flags: int = INDIRECT) -> Outcome:
    good, size = bench.table([request(bench), reply(bench)])
    return bench.chain(Desc(good if address is None else address, size if length is None else length, flags))


@entry(KIND, BAD_CHAIN, OK)
def table_of_odd_length(bench: Bench, rng: random.Random) -> Outcome:
    """A table whose length is no multiple of a descriptor."""
    return bad_table(bench, None, rng.choice([1, 15, 17, 24, 31]))


@entry(KIND, BAD_CHAIN)
def empty_table(bench: Bench, _: random.Random) -> Outcome:
    """A table without entries."""
    return bad_table(bench, None, 0)


@entry(KIND, BAD_CHAIN)
def huge_table(bench: Bench, rng: random.Random) -> Outcome:
    """A table of nearly 4 GiB."""
    return bad_table(bench, None, rng.choice([0xfffffff0, 0x80000000]))


@entry(KIND, BAD_CHAIN)
def table_nowhere(bench: Bench, rng: random.Random) -> Outcome:
    """A table outside guest memory."""
    regions = bench.memory.regions
    return bad_table(bench, rng.choice([regions[-1].end, regions[1].end, TOP - 16, TOP - 32, 1 << 63]), None)


@entry(KIND, BAD_CHAIN)
def table_past_a_region(bench: Bench, _: random.Random) -> Outcome:
    """A table whose second entry lies behind the end of memory."""
    end = bench.memory.regions[-1].end
    return bad_table(bench, end - 16, 32)


@entry(KIND, BAD_CHAIN)
def nested_table(bench: Bench, _: random.Random) -> Outcome:
    """A table with a table in it."""
    address, length = bench.table([request(bench), reply(bench)])
    return bench.indirect(Desc(address, length, INDIRECT))


@entry(KIND, BAD_CHAIN)
def table_in_itself(bench: Bench, _: random.Random) -> Outcome:
    """A table with itself in it."""
    address, length = bench.table([Desc(0, 0), Desc(0, 0)])
    bench.memory.write(address, bench.memory.read(bench.table([Desc(address, length, INDIRECT), Desc(0, 0)])[0], 16))
    return bench.chain(Desc(address, length, INDIRECT))


@entry(KIND, BAD_CHAIN, OK)
def table_then_more(bench: Bench, _: random.Random) -> Outcome:
    """INDIRECT together with NEXT."""
    address, length = bench.table([request(bench)])
    return bench.chain(Desc(address, length, INDIRECT), reply(bench))


@entry(KIND, BAD_CHAIN, ring="split")
def next_past_an_indirect_table(bench: Bench, rng: random.Random) -> Outcome:
    """A next inside the table that is not one of its entries."""
    first = request(bench)
    return bench.indirect(Desc(first.addr, first.length, 0, rng.choice([2, 100, 0xffff])), reply(bench))


@entry(KIND, BAD_CHAIN, ring="split")
def loop_in_an_indirect_table(bench: Bench, _: random.Random) -> Outcome:
    """A next inside the table that leads back."""
    first = request(bench)
    return bench.indirect(first, Desc(first.addr, first.length, 0, 0))


# Addresses

def bad_addresses(bench: Bench, length: int) -> list[int]:
    regions = bench.memory.regions
    return [regions[-1].end, regions[1].end, regions[-1].end - length + 1, regions[1].end - length // 2, TOP - length,
            TOP - 1, TOP - length // 2, 1 << 63, regions[0].host_addr, regions[-1].guest_addr - 1]


@entry(KIND, BAD_CHAIN)
def request_nowhere(bench: Bench, rng: random.Random) -> Outcome:
    """A readable address in a hole, behind memory, over its end, or wrapping around."""
    return bench.chain(Desc(rng.choice(bad_addresses(bench, 56)), 56), reply(bench))


@entry(KIND, BAD_CHAIN)
def reply_nowhere(bench: Bench, rng: random.Random) -> Outcome:
    """The same for a writable address."""
    return bench.chain(request(bench), Desc(rng.choice(bad_addresses(bench, REPLY)), REPLY, WRITE))


@entry(KIND, BAD_CHAIN)
def reply_half_nowhere(bench: Bench, rng: random.Random) -> Outcome:
    """The reply's header has a place, the rest has none."""
    out = reply(bench, abi.OUT_HEADER.size)
    address = rng.choice(bad_addresses(bench, abi.ATTR_OUT.size))
    return bench.chain(request(bench), out, Desc(address, abi.ATTR_OUT.size, WRITE), reply=out.addr)


@entry(KIND, BAD_CHAIN)
def enormous_buffer(bench: Bench, rng: random.Random) -> Outcome:
    """A good address with a length that leaves memory."""
    out = reply(bench)
    return bench.chain(request(bench), Desc(out.addr, rng.choice([0xffffffff, 0x80000000, 0x7fffffff]), WRITE))


@entry(KIND, BAD_CHAIN, OK, MALFORMED)
def reply_over_the_rings(bench: Bench, rng: random.Random) -> Outcome:
    """The device is asked to write its reply over its own rings."""
    queue = bench.queue
    where = rng.choice([queue.desc_gpa, queue.used_gpa, queue.avail_gpa])
    outcome = bench.chain(request(bench), Desc(where, REPLY, WRITE))
    bench.dirty = True
    return outcome


# Order, and what is missing

@entry(KIND, BAD_CHAIN, OK)
def writable_before_readable(bench: Bench, _: random.Random) -> Outcome:
    """The reply's buffers stand before the request's."""
    out = reply(bench)
    return bench.chain(out, request(bench), reply=out.addr)


@entry(KIND, BAD_CHAIN, OK)
def alternating_directions(bench: Bench, _: random.Random) -> Outcome:
    """Readable and writable in turns."""
    data, out = bench.getattr_request(), bench.room(REPLY)
    return bench.chain(Desc(bench.put(data[:40]), 40), Desc(out, 16, WRITE), Desc(bench.put(data[40:]), 16),
                       Desc(out + 16, REPLY - 16, WRITE), reply=out)


@entry(KIND, EMPTY, BROKEN)
def no_reply_room(bench: Bench, _: random.Random) -> Outcome:
    """A request that has a reply, without a place for it."""
    return bench.chain(request(bench))


@entry(KIND, BAD_REQUEST, BROKEN)
def no_request(bench: Bench, _: random.Random) -> Outcome:
    """Only writable buffers."""
    return bench.chain(reply(bench))


@entry(KIND, EMPTY, BROKEN)
def reply_room_less_than_a_header(bench: Bench, rng: random.Random) -> Outcome:
    """1 to 15 bytes for the reply."""
    return bench.chain(request(bench), reply(bench, rng.randrange(1, abi.OUT_HEADER.size)))


@entry(KIND, BAD_CHAIN, errno.EOVERFLOW, errno.ENOSPC, errno.ENOBUFS, errno.ERANGE)
def reply_room_too_small(bench: Bench, rng: random.Random) -> Outcome:
    """Room for a header, not for what the operation answers."""
    out = reply(bench, rng.randrange(abi.OUT_HEADER.size, REPLY))
    return bench.chain(request(bench), out, reply=out.addr)


# The indices

@entry(KIND, BAD_RING, ring="split")
def available_index_jumps(bench: Bench, rng: random.Random) -> Outcome:
    """An available index that promises more entries than the ring has."""
    head, indices = bench.place([request(bench), reply(bench)])
    bench.queue.avail_idx = bench.queue.avail_idx + bench.queue.size + rng.choice([1, 2, 1000, 0x7fff])
    bench.queue.kick(force=True)
    bench.device.wait(bench.queue_index, 0.2)
    bench.dirty = True
    return bench.show(head, indices)


@entry(KIND, BAD_RING, ring="split")
def available_index_goes_back(bench: Bench, rng: random.Random) -> Outcome:
    """An available index from before what the device has seen."""
    bench.queue.avail_idx = bench.queue.avail_idx - rng.choice([1, 2, 100])
    bench.queue.kick(force=True)
    bench.device.wait(bench.queue_index, 0.2)
    bench.dirty = True
    return bench.show(*bench.place([request(bench), reply(bench)]))


@entry(KIND, BAD_RING, ring="split")
def used_index_overwritten(bench: Bench, rng: random.Random) -> Outcome:
    """The guest writes into the device's area."""
    before = bench.queue.used_idx
    bench.queue.used_idx = rng.getrandbits(16)
    bench.queue.used_idx = before
    out = reply(bench)
    outcome = bench.chain(request(bench), out, reply=out.addr)
    bench.dirty = True
    return outcome


@entry(KIND, BAD_RING, BAD_CHAIN, ring="packed")
def chain_without_an_end(bench: Bench, _: random.Random) -> Outcome:
    """Every slot of a packed ring available, each with NEXT."""
    slots = bench.queue.packed_place(bench.queue.num_free)
    first = request(bench)
    for slot, bits, id_ in reversed(slots):
        bench.queue.write_desc(slot, first.addr, 1, NEXT | bits, id_)
    bench.dirty = True
    return bench.show(slots[0][2])


@entry(KIND, BAD_RING, BAD_CHAIN, ring="packed")
def chain_that_is_not_finished(bench: Bench, _: random.Random) -> Outcome:
    """A packed head with NEXT, and nothing available behind it."""
    slot, bits, id_ = bench.queue.packed_place(1)[0]
    first = request(bench)
    bench.queue.write_desc(slot, first.addr, first.length, NEXT | bits, id_)
    bench.dirty = True
    return bench.show(id_)


@entry(KIND, BAD_RING, ring="packed")
def buffer_id_past_the_ring(bench: Bench, _: random.Random) -> Outcome:
    """A packed buffer id that is no index; a device may echo it."""
    slots = bench.queue.packed_place(2)
    for (slot, bits, _id), desc in reversed(list(zip(slots, [request(bench), reply(bench)], strict=True))):
        flags = desc.flags | bits | (NEXT if slot == slots[0][0] else 0)
        bench.queue.write_desc(slot, desc.addr, desc.length, flags, 0xffff)
    bench.dirty = True
    return bench.show(slots[0][2])


# While the device reads

@entry(KIND, OK, BAD_CHAIN, BAD_REQUEST, SILENT, MALFORMED, errno.ENOSYS, errno.ENOENT, errno.EBADF, errno.ESTALE,
       errno.EPERM)
def request_that_changes(bench: Bench, rng: random.Random) -> Outcome:
    """The guest rewrites length and opcode over and over while the device works on the request."""
    data = bench.getattr_request()
    start, out = bench.put(data), reply(bench)
    words = [abi.IN_HEADER.pack(len=rng.choice([0, 40, 56, 0xffffffff]), nodeid=ROOT, unique=bench.fuse.unique,
                                opcode=rng.choice([Opcode.GETATTR, Opcode.READ, Opcode.LOOKUP, 0xffff]))[:8]
             for _ in range(16)]
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            for word in words:
                bench.memory.write(start, word)

    thread = threading.Thread(target=flip, daemon=True)
    thread.start()
    try:
        return bench.chain(Desc(start, len(data)), out, reply=out.addr)
    finally:
        done.set()
        thread.join(5)


@entry(KIND, OK, BAD_CHAIN, BAD_RING, MALFORMED, ring="split")
def descriptor_that_changes(bench: Bench, rng: random.Random) -> Outcome:
    """The guest moves and stretches a published descriptor while the device works on the chain."""
    first, out = request(bench), reply(bench)
    head, indices = bench.place([first, out])
    others = [(rng.choice([out.addr, TOP - 8, 1 << 62]), rng.choice([REPLY, 0, 0xffffffff]), WRITE) for _ in range(16)]
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            for addr, length, flags in others:
                bench.queue.write_desc(indices[1], addr, length, flags)

    thread = threading.Thread(target=flip, daemon=True)
    thread.start()
    try:
        outcome = bench.show(head, indices)
    finally:
        done.set()
        thread.join(5)
    bench.dirty = True
    return outcome
