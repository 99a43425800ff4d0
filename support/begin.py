"""What a program imports first: the other imports take a second, in which one may press Ctrl-C."""

import os
import sys


def report(kind, error, traceback):
    """Ends with one line on standard error if that is Ctrl-C, and otherwise as Python does."""
    if issubclass(kind, KeyboardInterrupt):
        print(f'{os.path.basename(sys.argv[0])}: interrupted', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = report
