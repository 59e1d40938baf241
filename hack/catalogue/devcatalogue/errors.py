"""The one error that ends a command with a message instead of a traceback."""


class CatalogueError(Exception):
    """What was expected, what was found, what to do next."""
