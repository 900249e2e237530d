"""Facts and their listeners (floor 1): the log, metrics and health over HTTP, the context of the
event being handled, the watchdog."""

from .facts import *  # noqa: F403 (each fact is described in one place)
from .forks import keep_from_forks as keep_from_forks
from .http import Endpoint as Endpoint
from .http import listen as listen
from .links import Links as Links
from .log import FactLog as FactLog
from .log import LogContext as LogContext
from .log import configure_logging as configure_logging
from .log import fan_out as fan_out
from .metrics import Metrics as Metrics
from .page import metrics_of as metrics_of
from .queue_figures import PartitionFigures as PartitionFigures
from .queue_figures import QueueFigures as QueueFigures
from .sanitise import bounded as bounded
from .sanitise import is_secret as is_secret
from .sanitise import neutral as neutral
from .sanitise import redact as redact
from .sanitise import text_of as text_of
from .shared_figures import SharedFigures as SharedFigures
from .spans import Spans as Spans
from .spans import open_spans as open_spans
from .supervision import cancellations as cancellations
from .supervision import end as end
from .supervision import finish as finish
from .supervision import heed_cancellation as heed_cancellation
from .supervision import in_time as in_time
from .supervision import keep_running as keep_running
from .supervision import keep_turning as keep_turning
from .supervision import mark_heard as mark_heard
from .supervision import report as report
from .watchdog import Watchdog as Watchdog
