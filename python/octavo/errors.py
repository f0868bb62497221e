"""The errors octavo raises for mistakes a caller can mend.

Every message is one sentence that says what was wrong, what was expected and what to do.
"""


class OctavoError(Exception):
    """Base of every error octavo raises on purpose."""


class InvalidInputError(OctavoError, ValueError):
    """A prompt, parameter or option has a value octavo cannot accept."""


class InvalidTypeError(OctavoError, TypeError):
    """A prompt, parameter or option has the wrong type."""


class ModelError(OctavoError, ValueError):
    """A model file or folder is missing, damaged, hostile or of a kind octavo cannot run."""
