"""punchd: hole punching as a service. Applications import punchd.client; everything else serves the daemon.
Imports nothing by itself."""

__version__ = "0.1.0"
