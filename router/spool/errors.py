"""What can go wrong with the spool, as its callers tell the cases apart.

Owns the exceptions of the package; every error of the operating system or of SQLite leaves the
package as one of them.
"""


class SpoolError(Exception):
    """The spool could not do what was asked; the text is fit for an operator."""


class SpoolFull(SpoolError):
    """No space or descriptor is left, on the disk, in the process or under a configured limit; it
    may come back by itself."""


class SpoolDamaged(SpoolError):
    """A record is not what was written: wrong magic, length or checksum."""


class SpoolLocked(SpoolError):
    """Another process has the directory."""


class IndexDamaged(SpoolError):
    """The index file is corrupt or none of ours; moved aside, it is rebuilt from the records."""
