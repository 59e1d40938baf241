"""What can go wrong, and the exit status each kind gives.

ClusterError            1  something failed; the message says what and what to do
├── NotRunningError     3  there is no such cluster, or it is stopped
├── BrokenError         4  the cluster is there and does not work
└── RequirementsError   5  this machine lacks something
"""

__all__ = ["BrokenError", "ClusterError", "NotRunningError", "RequirementsError"]


class ClusterError(Exception):
    """A failure that the user can act on; shown as its message, never as a traceback."""

    exit_status = 1


class NotRunningError(ClusterError):
    """The named cluster does not exist."""

    exit_status = 3


class BrokenError(ClusterError):
    """The named cluster exists, but parts of it do not run or do not answer."""

    exit_status = 4


class RequirementsError(ClusterError):
    """Programs, rights or kernel features are missing."""

    exit_status = 5
