"""What can go wrong before anything runs, in the words an operator needs."""


class StartError(Exception):
    """Nothing can be started; str() is the one line to print before leaving with a status other than 0."""
