"""Runs programs in forked children, which find all modules imported.

    python fork_server.py MODULE ...     # standard input is a socket

imports the modules, and then serves requests until the other end of the socket is closed. It runs
nothing else before it forks: a thread of OpenMP or of NumPy's BLAS would not exist in the child.

A request is one byte with four descriptors: a connection of its own, and the child's standard
input, output and error. A line of JSON follows on the connection: the words that would stand
behind ``python`` on a command line, and the working directory. Two lines come back: the child's
process ID and, when it has ended, its exit status (negative for a signal).

A child is to be told from a fresh interpreter by nothing: it runs the program as ``__main__`` and
ends as Python does, except that it frees no memory, which would take longer than most programs
run. For environment variables that act at import it is too late. Pictures that Matplotlib draws
are empty: a test that looks at one starts a process of its own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys


def serve(control):
    """Returns in each child: the words of its request."""
    for_pytest = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    descriptors = []
    while not descriptors or os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        request, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not request:
            os._exit(0)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, for_pytest)
    with socket.socket(fileno=descriptors.pop(0)) as connection, connection.makefile('rw') as f:
        words, folder = json.loads(f.readline())
        child = os.fork()
        if child:  # the keeper, who tells how the child ends
            for descriptor in descriptors:
                os.close(descriptor)
            print(child, file=f, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=f, flush=True)
            os._exit(0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    return words


status = []


def leave():
    """The last call at exit: if all is well, nothing is left to do but to free the memory."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(*status)


def run(words):
    """Runs a script, or the code behind ``-c``, as the interpreter does."""
    try:
        if words[0] == '-c':
            sys.path[0], sys.argv[:] = '', ['-c', *words[2:]]
            exec(words[1], {'__name__': '__main__'})
        else:
            sys.path[0], sys.argv[:] = os.path.dirname(os.path.abspath(words[0])), words
            runpy.run_path(words[0], run_name='__main__')
    except SystemExit as e:
        status.append(e.code if isinstance(e.code, int) else int(e.code is not None))
        raise
    status.append(0)


if __name__ == '__main__':
    atexit.register(leave)
    sys.path[0] = os.path.dirname(sys.path[0])
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # what is optional
    registry = sys.modules.get('numba.core.registry')
    if registry:  # half of Numba is imported at the first call
        registry.cpu_target.typing_context.refresh()
        registry.cpu_target.target_context.refresh()
    if 'matplotlib.figure' in sys.modules:
        sys.modules['matplotlib.figure'].Figure.draw = lambda *_: None
    gc.freeze()
    words = serve(socket.socket(fileno=0))
    if 'numpy' in sys.modules:
        sys.modules['numpy'].random.seed()
    run(words)
