"""The one exception meant for users: what is wrong, where, and what to do."""


class NsvitError(Exception):
    """A problem the user can fix. The command line prints it without a traceback."""
