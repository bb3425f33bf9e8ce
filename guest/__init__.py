"""Everything to get and boot a Linux guest: for the tests, the benchmarks and the demonstration; never installed.

    fetch.py    gets what guests need (kernels, busybox, a newer QEMU) from Debian, once, into a cache
    image.py    the initramfs: static busybox, init.sh and agent.sh
    init.sh     the first process inside a guest: mounts, then the agent
    agent.sh    inside a guest: runs the scripts that the host sends
    boot.py     starts a guest and talks to its agent
    monitor.py  QEMU's monitor, for what a machine's owner does to it
    process.py  processes that end with the process that started them
    root.py     a Debian tree that a guest can have as its root
    mirror.py   the packages from which a guest installs a Debian without a network
    demo.py     what `make demo` shows

`python -m guest --help` runs one script in one guest.
"""
