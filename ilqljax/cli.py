"""The one way a command-line program of ilqljax ends when the user can fix what went wrong."""

import sys
from collections.abc import Callable
from typing import NoReturn

from ilqljax.errors import UserError


def run_main(main: Callable[[], None]) -> None:
    """Run a program; turn a mistake of the user into one line on stderr and exit status 2.

    A `UserError` is printed as it is, an `OSError` with the path it concerns; Ctrl-C ends with status 130. Anything
    else is a bug and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        _exit_with(str(error))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        _exit_with(reason if error.filename is None else f"{error.filename}: {reason}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _exit_with(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
