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
from kongai.plugin import Plugin
from kongai.plugins.ai_proxy import AIProxy
from kongai.plugins.file_log import FileLog
from kongai.plugins.http_log import HttpLog
from kongai.plugins.tcp_log import TcpLog
from kongai.proxy import Proxy
from kongai.sinks import FileSink, LogSink, StreamSink

__all__ = [
    "AIProxy",
    "ConfigError",
    "Exchange",
    "FileLog",
    "FileSink",
    "GatewayError",
    "HttpLog",
    "KongAIError",
    "LogSink",
    "Plugin",
    "Proxy",
    "RequestRejected",
    "Route",
    "Service",
    "StreamSink",
    "TcpLog",
    "__version__",
]
