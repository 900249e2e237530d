"""Idempotency (floor 3): claims on events, kept in Redis or in memory."""

from .availability import Availability as Availability
from .availability import StoreUnavailable as StoreUnavailable
from .lease import Lease as Lease
from .memory import MemoryClaims as MemoryClaims
from .open import OpenClaims as OpenClaims
from .open import claim_states as claim_states
from .open import no_claims as no_claims
from .open import open_claims as open_claims
from .open import open_heart as open_heart
from .outage import Completed as Completed
from .outage import WorkerClaims as WorkerClaims
from .outage import claim_key as claim_key
from .outage import fingerprint_of as fingerprint_of
from .port import Acquired as Acquired
from .port import Answer as Answer
from .port import Busy as Busy
from .port import Claim as Claim
from .port import ClaimState as ClaimState
from .port import ClaimStore as ClaimStore
from .port import Completion as Completion
from .port import Danger as Danger
from .port import Done as Done
from .port import Endangered as Endangered
from .port import Heart as Heart
from .port import Mismatch as Mismatch
from .port import Suspect as Suspect
