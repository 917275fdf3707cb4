"""THE HTTP in, for Prosody.

listener  the connections             requests  parse
webhooks  parse -> engine -> render   responses render
"""

from sidecar.web.responses import cache_status
from sidecar.web.server import Listener
from sidecar.web.webhooks import Manners, Webhooks

__all__ = ["Listener", "Manners", "Webhooks", "cache_status"]
