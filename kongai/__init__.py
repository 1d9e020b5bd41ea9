"""kongai: an AI gateway you can import, with Kong's configuration, names and record.

A `Proxy` is a WSGI application made from a Kong file or from objects::

    from kongai import Proxy

    proxy = Proxy.from_file("kong.yml")

What a plugin or a sink needs is here; everything else is found in the module of its
topic, for example `kongai.testing` or `kongai.errors`.
"""

from kongai._version import __version__
from kongai.entities import Route, Service
from kongai.errors import ConfigError, GatewayError, KongAIError, RequestRejected
from kongai.exchange import Exchange
from kongai.log import FileSink, LogSink, StreamSink
from kongai.plugin import Plugin
from kongai.plugins.ai_proxy import AIProxy
from kongai.plugins.file_log import FileLog
from kongai.proxy import Proxy

__all__ = [
    "AIProxy",
    "ConfigError",
    "Exchange",
    "FileLog",
    "FileSink",
    "GatewayError",
    "KongAIError",
    "LogSink",
    "Plugin",
    "Proxy",
    "RequestRejected",
    "Route",
    "Service",
    "StreamSink",
    "__version__",
]
