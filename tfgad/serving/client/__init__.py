"""The client of a server: REST, or gRPC.

>>> from tfgad.serving.client import Client
"""

from tfgad.serving.client.client import Client
from tfgad.serving.client.transport import ClientError

__all__ = ["Client", "ClientError"]
