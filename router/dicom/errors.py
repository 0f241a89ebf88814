"""The error of this package.  Floor 0: pure."""


class DicomError(Exception):
    """Bytes are not what PS3.5 or PS3.10 ask for; the text says what is wrong, and where."""
