"""The other side of a virtio-fs back-end, for tests and benchmarks: VMM, driver and FUSE client in one process.

    with BackEnd([sys.executable, "-m", "virtiofsd", "--sandbox", "none"], folder) as back_end, \\
            VirtioFs(back_end.socket, num_queues=2, profile="cloud-hypervisor") as device:
        fuse = FuseClient(device)
        fuse.init()
        entry, opened = fuse.create(ROOT, "file", 0o644, uid=1000, gid=1000)
        fuse.write(entry.nodeid, opened.fh, 0, b"data")
        ticket = fuse.submit(Opcode.STATFS, ROOT, out_size=80, queue=2)     # several may be in flight
        reply = fuse.complete(ticket)
        result = Generator(device.queues[1], [getattr_op(entry.nodeid)], depth=16).run(seconds=1, cpu=1)
        assert result.good

Each layer can be used alone, and made to misbehave: memory, vhost_user (messages), virtqueue (rings), profiles and
device (start-up as real VMMs do it), fuse_transport (framing and checks), fuse (operations), operations and load
(benchmarks), hostile (a catalogue of what a malicious guest may try).
"""
