"""The gateway for a WSGI server: `gunicorn -c gunicorn.conf.py wsgi`."""

from kongai import Proxy

application = Proxy.from_file("kong.yml")
