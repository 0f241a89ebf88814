"""Takes in what peers send: Storage and Verification as SCP (PS3.4 annexes A and B)."""

from router.ingest.feed import IndexFeed
from router.ingest.settings import StorageSettings
from router.ingest.storage import StorageService
from router.ingest.verification import VerificationService

__all__ = ["IndexFeed", "StorageService", "StorageSettings", "VerificationService"]
