"""Turns of threads at NumPy's files, of which some Pythons cannot read two at once."""

import sys
from contextlib import AbstractContextManager, nullcontext
from threading import RLock
from typing import Any

#: NumPy has Python parse the header of every array in an npy or npz file (``ast.literal_eval``). Python before 3.11.8
#: counts the depth of its syntax trees in one place for all threads. Where garbage is collected meanwhile, and a
#: finalizer lets another thread parse, the count is off, and the file is refused: "SystemError: AST constructor
#: recursion depth mismatch" (CPython issue 106905). Seen once when threads opened a network, and 18 times in 118,000
#: readings of an npy file by four threads that left much garbage. So what reads such files in threads holds this lock;
#: later Pythons need none.
READING: AbstractContextManager[Any] = RLock() if sys.version_info < (3, 11, 8) else nullcontext()
