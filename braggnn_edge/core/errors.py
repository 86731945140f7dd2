"""The one exception type whose message is written for the person at the terminal."""


class UserError(Exception):
    """Bad input, configuration or environment.

    The message names the offending value, what was expected and the remedy. The command line prints it as one
    line and exits with status 2; every other exception is a defect of this project and keeps its traceback.
    """
