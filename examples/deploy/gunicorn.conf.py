"""gunicorn's settings for a gateway: `gunicorn -c gunicorn.conf.py wsgi`.

This file is read before gevent patches: nothing of the gateway is imported here, and
`preload_app` stays off, so that each worker imports `wsgi` when it is patched.
"""

from typing import Any

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gevent"
# Connections at a time, in each worker.
worker_connections = 8192
# Seconds that running answers have when gunicorn stops or reloads. What takes longer is
# killed.
graceful_timeout = 30
# kongai has `trusted_ips` for this; gunicorn would believe whoever is on this machine.
forwarded_allow_ips = ""
# Newer versions would make a socket below the user's home.
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Load the price table, and record what a killed worker has left."""
    worker.wsgi.init_worker()


def worker_exit(server: Any, worker: Any) -> None:
    """Deliver the records that wait, and let go of the log."""
    gateway = getattr(worker, "wsgi", None)  # a worker that could not start has none
    if gateway is not None:
        gateway.close()
