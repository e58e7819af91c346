"""The one exception type that means: the user can fix this."""


class UserError(ValueError):
    """Report a mistake in input, configuration or files that the user can put right.

    The message says what was given, what was expected and what to change. Command-line programs print it as one line
    and exit with status 2; a library caller catches it like any `ValueError`.
    """
