"""How much memory this process may use."""

import os

CGROUPS = '/sys/fs/cgroup'


def available():
    """The least of the machine's memory, the limit of the container and that of ``ulimit -v``.

    Returns:
        float: Bytes; infinity where the system does not tell.
    """
    return min([_machine(), _address_space(), *_containers()])


def _machine():
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return float('inf')


def _address_space():
    try:
        import resource
    except ImportError:  # Windows
        return float('inf')
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return float('inf') if limit == resource.RLIM_INFINITY else limit


def _containers():
    """The limits of control groups, version 1 and 2."""
    folders = ['']
    try:
        with open('/proc/self/cgroup') as f:
            folders += [line.strip().split(':', 2)[2].strip('/') for line in f]
    except OSError:
        pass
    for folder in folders:
        for path in (
            os.path.join(CGROUPS, folder, 'memory.max'),
            os.path.join(CGROUPS, 'memory', folder, 'memory.limit_in_bytes'),
        ):
            try:
                with open(path) as f:
                    yield int(f.read())
            except (OSError, ValueError):  # no such group, or no limit ("max")
                pass
