"""Watched exchanges on disk, between the end of an answer and the store: nothing is lost to a killed process."""

from spex_proxy.ports.spool.segments import Ticket
from spex_proxy.ports.spool.spool import Spool, SpoolLimits

__all__ = ["Spool", "SpoolLimits", "Ticket"]
