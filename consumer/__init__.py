"""The life of a delivery (floor 4)."""

from ..broker import Existing as Existing
from .context import Context as Context
from .context import record as record
from .context import running as running
from .dependencies import Dependencies as Dependencies
from .errors import HandlerExit as HandlerExit
from .errors import HandlerTimeout as HandlerTimeout
from .handler import Handler as Handler
from .handler import HandlerSpec as HandlerSpec
from .handler import Middleware as Middleware
from .handler import topology_of as topology_of
from .ordering import Ordered as Ordered
from .registration import short_windows as short_windows
from .retry import Backoff as Backoff
from .retry import Retry as Retry
from .retry import exponential as exponential
from .retry import fixed as fixed
from .retry import linear as linear
from .worker import Health as Health
from .worker import Worker as Worker
