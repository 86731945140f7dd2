"""How a command ends: exceptions as one line for the person at the terminal, and an exit status."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor

from braggnn_edge.core.errors import UserError

_AGAIN = "what is finished is kept"

#: What went wrong with a file, and what to do, by errno.
_FILES = {
    errno.ENOSPC: f"the disk is full; {_AGAIN}: make room and run the same command again",
    errno.EDQUOT: f"the disk quota is used up; {_AGAIN}: make room and run the same command again",
    errno.EFBIG: f"a file would be larger than this session or file system allows (see `ulimit -f`); {_AGAIN}: raise "
    "the limit and run the same command again",
    errno.ENAMETOOLONG: "a file name would be too long; shorten the name of the scan, of the run or of the folders",
    errno.EROFS: "the file system can only be read; choose another --runs",
}
#: Status of a program that the reader of its output has left, as a shell says it: 128 and the signal SIGPIPE.
_PIPE = 141


def exit_status(work: Callable[[], None], program: str) -> int:
    """Run ``work``; 0 when it is done, 2 after one line on standard error for what the user can mend.

    130 after an interruption, 141 when nobody reads standard output any more. Every other exception is a defect of this
    project and keeps its traceback.
    """
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # closed, or replaced by something simpler
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal without Unicode
    try:
        work()
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        # Messages that quote a compiler or a library hold line breaks.
        return _refused(program, " ".join(str(error).split()))
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # nothing is left to be flushed at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _say(f"{program}: standard output was closed; {_AGAIN}: run the same command again to continue")
        return _PIPE
    except (BrokenExecutor, MemoryError) as error:
        what = "there is not enough memory" if isinstance(error, MemoryError) else "a worker process was killed"
        likely = "" if isinstance(error, MemoryError) else ", most likely for lack of memory"
        return _refused(program, f"{what}{likely}; {_AGAIN}: run the same command again with fewer --workers")
    except OSError as error:
        if error.errno not in _FILES:
            raise
        return _refused(program, _FILES[error.errno])
    except KeyboardInterrupt:
        _say(f"{program}: interrupted; run the same command again to continue")
        return 130
    return 0


def _open_closed() -> None:
    """Give closed standard streams (``>&-``) their numbers back: the next file that is opened would take them.

    What a compiled library prints would go into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _refused(program: str, message: str) -> int:
    _say(f"{program}: error: {message}")
    return 2


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)
