"""The gateway itself: the straight line that every exchange takes.

::

    rewrite -> match a route -> access -> balancer / transport -> header_filter
            -> body_filter, chunk by chunk -> log and sinks, exactly once

A `Proxy` is a WSGI application, and `Proxy.handle` takes a Werkzeug or Flask request
and gives back a response. It never changes after it was made; a reload makes another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from kongai import answers, body_memory, config, incoming, inventory
from kongai.body import Body
from kongai.criteria import normalize
from kongai.entities import Consumer, Route, Service, Upstream
from kongai.errors import (
    GatewayError,
    NoRouteMatched,
    Refused,
    ended_by,
    whereabouts,
)
from kongai.exchange import Exchange
from kongai.log import serialize
from kongai.plugin import Chain, Plugin
from kongai.router import Match, Router
from kongai.scopes import Plugins, Scope, Scoped
from kongai.sending import send
from kongai.sinks import LogSink
from kongai.trust import Trust

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from kongai.transport import Transport

_logger = logging.getLogger("kongai")


class Proxy:
    """An AI gateway: a WSGI application made of services, routes, plugins and sinks.

    Args:
        services: where requests go, each with its routes.
        routes: routes without a service. With neither services nor routes, one route
            takes every path, and a plugin such as `AIProxy` says where it leads.
        plugins: for every request, or each in a `Scoped` with what it is for. Of
            several plugins with one name the most specific runs: a consumer's, else a
            route's, else a service's, else one of these.
        consumers: who may send requests, known by their credentials.
        upstreams: targets among which the requests for a service are shared out; a
            service whose host is an upstream's name sends them there.
        extra_plugins: for every request too, whatever else has their name.
        sinks: take every record.
        transport: how upstreams are reached; `SocketTransport` when None.
        fallback: a WSGI application for requests that match no route.
        max_body_memory: bytes of request bodies that are in memory at a time, in all;
            beyond them requests are refused with 503. None for no limit. Bodies that
            are passed on as they come do not count.
        trusted_ips: addresses and networks of peers, such as a load balancer, that are
            believed about the client's address and in `X-Forwarded-*`.
        real_ip_header: the header in which they name the client's address.
        real_ip_recursive: of several there, the last that is not trusted counts.

    Raises:
        ConfigError: plugins can't be used together, or names clash.
    """

    def __init__(
        self,
        services: Sequence[Service] = (),
        routes: Sequence[Route] = (),
        plugins: Sequence[Plugin | Scoped] = (),
        sinks: Sequence[LogSink] = (),
        *,
        consumers: Sequence[Consumer] = (),
        upstreams: Sequence[Upstream] = (),
        extra_plugins: Sequence[Plugin] = (),
        transport: Transport | None = None,
        fallback: WSGIApplication | None = None,
        max_body_memory: int | None = body_memory.DEFAULT,
        trusted_ips: Iterable[str] = (),
        real_ip_header: str = "X-Real-IP",
        real_ip_recursive: bool = False,
    ) -> None:
        if not services and not routes:
            routes = (Route(paths=("/",)),)
        self.sinks = tuple(sinks)
        self._fallback = fallback
        self._body_memory = body_memory.BodyMemory(max_body_memory)
        self._trust = Trust(trusted_ips, real_ip_header, recursive=real_ip_recursive)
        self._transport = transport or _default_transport()
        pairs = inventory.paired(services, routes)
        self.consumers = inventory.directory(consumers)
        self.upstreams = inventory.balancers(upstreams)
        self.services = tuple({id(s): s for _, s in pairs if s}.values())
        self.routes = tuple(route for route, _ in pairs)
        self.router = Router(pairs)
        self.scopes = Plugins(
            inventory.scoped(
                pairs,
                self.consumers,
                plugins,
                unused=[service for service in services if not service.routes],
            ),
            extra_plugins,
        )
        self._unmatched = self.scopes.chain()
        names = (plugin.secret_names for plugin in self.scopes)
        self._secret_names = frozenset().union(*names)
        for route, service in pairs:
            # What can't be used together shows now and not at the first request.
            self.scopes.chain(route.id, service.id if service else None)

    @classmethod
    def from_config(
        cls,
        data: config.Config | Mapping[str, Any],
        *,
        plugins: Sequence[Plugin] = (),
        sinks: Sequence[LogSink] = (),
        **options: Any,
    ) -> Proxy:
        """Make a gateway from a declarative configuration.

        Args:
            data: what a Kong file says, as Python data; or what `kongai.config` loaded.
            plugins: more plugins, for every route.
            sinks: take every record.
            options: `transport`, `fallback`, `max_body_memory`, `trusted_ips`,
                `real_ip_header` and `real_ip_recursive`, as for the class.

        Raises:
            ConfigError: with every problem found.
        """
        found = data if isinstance(data, config.Config) else config.load_mapping(data)
        # A file without any route matches nothing, as in Kong.
        nothing = () if found.services else (_MATCHES_NOTHING,)
        return cls(
            found.services,
            found.routes or nothing,
            found.plugins,
            sinks,
            consumers=found.consumers,
            upstreams=found.upstreams,
            extra_plugins=plugins,
            **options,
        )

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        *,
        plugins: Sequence[Plugin] = (),
        sinks: Sequence[LogSink] = (),
        **options: Any,
    ) -> Proxy:
        """Make a gateway from a declarative file, YAML or JSON.

        Args:
            path: the file.
            plugins, sinks, options: as for `from_config`.

        Raises:
            ConfigError: with every problem found, each with its line.
            OSError: the file can't be read.
        """
        return cls.from_config(
            config.load_file(path), plugins=plugins, sinks=sinks, **options
        )

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin of the gateway, each once."""
        return tuple({id(plugin): plugin for plugin in self.scopes}.values())

    def init_worker(self) -> None:
        """Tell the plugins that a server process starts; a server calls this."""
        for plugin in self.plugins:
            plugin.init_worker()

    def reopen(self) -> None:
        """Tell the plugins to open their files anew; a server calls this on SIGUSR1."""
        for plugin in self.plugins:
            _carefully(plugin.reopen)

    def close(self) -> None:
        """Close plugins, sinks and idle connections; the gateway is then of no use."""
        for plugin in self.plugins:
            _carefully(plugin.prepare_close)
        for plugin in self.plugins:
            _carefully(plugin.close)
        for sink in self.sinks:
            _carefully(sink.close)
        self._transport.close()

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        exchange = self.routed(incoming.ClientRequest(environ))
        fallback = self._fallback
        if fallback is not None and not (exchange.match or exchange.error):
            return fallback(environ, start_response)
        return self._respond(exchange, start_response)

    def refuse(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        error: GatewayError,
    ) -> Iterable[bytes]:
        """Answer and record a request that the server around the gateway does not take.

        Args:
            environ: as far as the request is known; its body is not read.
            start_response: as for the call.
            error: why. What is no HTTP has no route; any other request is told in the
                way of its route.
        """
        request = incoming.ClientRequest(environ)
        no_http = isinstance(error, Refused)
        exchange = self._begun(request) if no_http else self.routed(request)
        exchange.error = error
        return self._respond(exchange, start_response)

    def _respond(
        self, exchange: Exchange, start_response: StartResponse
    ) -> Iterable[bytes]:
        body = self._run(exchange)
        response = exchange.response
        assert response is not None
        try:
            write = start_response(response.status, response.headers.to_wsgi_list())
            if body.is_stream and not body.is_whole():
                # Sends the head now: the first event may be a minute away.
                write(b"")
        except BaseException:
            # The server never gets the body, so nobody else would close it.
            body.close()
            raise
        return body

    def handle(self, request: Request) -> Response:
        """Answer a request from inside another application, such as a Flask view.

        Args:
            request: a Werkzeug request; ``flask.request`` is taken as it is.

        Returns:
            A response whose body streams. The exchange's record is written when the
            response is closed, as every WSGI server does.
        """
        # flask.request is a stand-in that is gone by the time the body streams.
        current = getattr(request, "_get_current_object", None)
        exchange = self.routed(current() if current else request)
        fallback = self._fallback
        if fallback is not None and not (exchange.match or exchange.error):
            return Response.from_app(fallback, exchange.request.environ)
        body = self._run(exchange)
        return answers.streamed(exchange, body)

    def routed(self, request: Request) -> Exchange:
        """Begin an exchange: the request, and the route it takes, if any does."""
        exchange = self._begun(request)
        if self._unmatched.rewrite:
            self._rewrite(exchange)
        host, path, headers = exchange.host, exchange.path, exchange.headers
        sni = incoming.tls_name(request)
        match = self.router.match(exchange.method, host, path, headers, sni=sni)
        if match is None or "http" in match.route.protocols:
            exchange.match = match
        else:
            self._take_if_secure(exchange, match)
        refusal = incoming.objection(exchange.method, exchange.target)
        if refusal and (exchange.match or not self._fallback):
            exchange.match, exchange.error = None, exchange.error or refusal
        return exchange

    def _begun(self, request: Request) -> Exchange:
        target = incoming.raw_target(request.environ)
        exchange = Exchange(
            request,
            target=target,
            path=normalize(target.partition("?")[0]),
            headers=incoming.client_headers(request),
            consumers=self.consumers,
            upstreams=self.upstreams,
            body_share=body_memory.Share(self._body_memory),
            secret_names=self._secret_names,
        )
        self._trust.look_at(exchange)
        return exchange

    def _rewrite(self, exchange: Exchange) -> None:
        """Let the plugins change what the route is found by."""
        try:
            for rewrite in self._unmatched.rewrite:
                rewrite(exchange)
        except BaseException as error:
            # It is raised again where there is a chain to record it.
            exchange.error = error

    def _take_if_secure(self, exchange: Exchange, match: Match) -> None:
        """Take a route that is not for plain HTTP."""
        own = incoming.scheme_of(exchange.request)
        if exchange.forwarded("X-Forwarded-Proto", own) == "https":
            exchange.match = match
        else:
            refusal = answers.https_required(exchange, match.route)
            exchange.error = exchange.error or refusal

    def _run(self, exchange: Exchange) -> Body:
        """Take an exchange from its route to the head of its answer."""
        _go_through(exchange, self.scopes.chain(*_ids(exchange.match)))
        try:
            try:
                chunks = self._answer(exchange)
            except Exception as error:
                chunks = self._failed(exchange, error)
        except BaseException as gone:
            # Nobody is left to answer; the record is still owed.
            exchange.error = gone
            exchange.ended = ended_by(gone)
            self._finish(exchange)
            raise
        return Body(exchange, chunks, self._finish)

    def _answer(self, exchange: Exchange) -> Iterator[bytes]:
        if exchange.error is not None:
            raise exchange.error
        if exchange.match is None:
            raise NoRouteMatched
        response = self._access(exchange)
        if response is not None:
            return self._filtered(exchange, answers.own(exchange, response))
        upstream = send(exchange, self._transport)
        chunks = answers.relayed(exchange, upstream)
        return self._filtered(exchange, chunks)

    def _access(self, exchange: Exchange) -> Response | None:
        """Run the access phase; a consumer found there changes what is left of it."""
        index = 0
        while index < len(exchange.chain.access):
            access, known = exchange.chain.access[index], exchange.consumer
            try:
                response = access(exchange)
            finally:
                if exchange.consumer is not known:
                    self._narrow(exchange, exchange.chain.turns[index])
            if response is not None:
                return cast("Response", response)
            index += 1
        return None

    def _narrow(self, exchange: Exchange, done: int) -> None:
        assert exchange.consumer is not None
        scope = Scope(*_ids(exchange.match), exchange.consumer.id)
        _go_through(exchange, self.scopes.narrowed(exchange.chain, done, scope))

    def _failed(self, exchange: Exchange, error: Exception) -> Iterator[bytes]:
        """Say an error to the client, and go on with the later phases."""
        exchange.error = error
        exchange.let_go()
        failure = answers.told_of(error, exchange)
        given = error.response if isinstance(error, HTTPException) else None
        if isinstance(given, Response):
            # `abort(Response(...))`: a plugin's answer by another way.
            chunks = answers.own(exchange, given)
        else:
            exchange.ended = failure.ended
            chunks = answers.failure(exchange, failure)
        try:
            return self._filtered(exchange, chunks)
        except Exception as second:
            _logger.error("%s; request %s", whereabouts(second), exchange.id)
            exchange.ended = failure.ended
            return answers.failure(exchange, failure)

    def _filtered(self, exchange: Exchange, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for header_filter in exchange.chain.header_filter:
            header_filter(exchange)
        answers.check_head(exchange)
        for body_filter in exchange.chain.body_filter:
            chunks = body_filter(exchange, chunks)
        return chunks

    def _finish(self, exchange: Exchange) -> None:
        """The log phase: whatever happened, every plugin and sink gets its turn."""
        _guarded(Exchange.let_go, exchange)
        exchange.body_share.release()
        exchange.timings.end = time.perf_counter()
        for log in exchange.chain.log:
            _guarded(log, exchange)
        for sink in self.sinks:
            _guarded(_emitting(sink), exchange)


def _go_through(exchange: Exchange, chain: Chain) -> None:
    """Let an exchange go through the plugins of a chain."""
    exchange.chain = chain
    if exchange.match is not None and chain.error_format is not None:
        exchange.error_format = chain.error_format


def _ids(match: Match | None) -> tuple[str | None, str | None]:
    """The ids of the route and of its service."""
    if match is None:
        return None, None
    return match.route.id, match.service.id if match.service else None


_MATCHES_NOTHING = Route(methods=("NOTHING",))


def _default_transport() -> Transport:
    # It is slow to import, and a script may bring a transport of its own.
    from kongai.socket_transport import SocketTransport

    return SocketTransport()


def _guarded(step: Callable[[Exchange], None], exchange: Exchange) -> None:
    try:
        step(exchange)
    except Exception as error:
        _logger.error("log phase: %s; request %s", whereabouts(error), exchange.id)


def _carefully(step: Callable[[], None]) -> None:
    """Take a step of one of several; a mistake there does not keep the others."""
    try:
        step()
    except Exception as error:
        _logger.error("%s", whereabouts(error))


def _emitting(sink: LogSink) -> Callable[[Exchange], None]:
    return lambda exchange: sink.emit(serialize(exchange))
