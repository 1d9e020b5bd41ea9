"""What a Kong file declares: entities with Kong's fields, one module for each kind.

They are plain values: immutable structs with Kong's names, defaults and rules. What a
gateway makes of them is elsewhere: `kongai.router`, `kongai.balancer`, `kongai.plugin`.
"""

from kongai.entities.certificate import CACertificate, Certificate
from kongai.entities.consumer import Consumer, KeyAuthCredential
from kongai.entities.route import Route
from kongai.entities.service import Service

STRUCTS = {
    "certificates": Certificate,
    "ca_certificates": CACertificate,
    "services": Service,
    "routes": Route,
    "consumers": Consumer,
    "keyauth_credentials": KeyAuthCredential,
}
"""The kinds of entities, by the name of their section in a file."""

__all__ = [
    "CACertificate",
    "Certificate",
    "Consumer",
    "KeyAuthCredential",
    "Route",
    "STRUCTS",
    "Service",
]
