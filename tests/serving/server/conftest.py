"""Certificates of a test authority, and models as the metrics of a server need them."""

import dataclasses

import pytest

from tfgad.serving.credentials import Tls


class Models:
    """The models in service, as the metrics need them."""

    def __init__(self, **watches):
        self.watches = watches

    def names(self):
        return list(self.watches)

    def scores(self, name):
        return self.watches[name]

    def queued_rows(self, name):
        return 0

    def version(self, name):
        return 1


@dataclasses.dataclass
class Certificates:
    """Files of an authority, and of a server's certificate and key."""

    authority: str
    tls: Tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    trustme = pytest.importorskip("trustme", reason="needs pip install 'tfgad[test]'")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "certificate.pem"), append=True)
    tls = Tls(folder / "certificate.pem", folder / "key.pem")
    return Certificates(str(folder / "authority.pem"), tls)
