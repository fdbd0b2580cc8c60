"""fsspec's file systems, opened in one way by all who need one: which backend a URL wants, and which extra brings it.

One instance for each store is kept for the life of the process: it holds connections, and making one is slow. Credentials
and endpoints are fsspec's own configuration (``FSSPEC_S3_ENDPOINT_URL``, ``FSSPEC_S3_KEY`` …), never part of a URL.
"""

import os
from functools import lru_cache
from typing import Any

from fsspec import AbstractFileSystem, get_filesystem_class
from fsspec.core import split_protocol
from fsspec.registry import known_implementations

from flinkjob.api.errors import UnsupportedStorage

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
    "hdfs": "hdfs",
}
"""The extra of this package that installs the backend of a scheme."""


def scheme_of(url: str) -> str | None:
    """The URL's scheme; None for a plain path."""
    scheme, path = split_protocol(os.fspath(url))
    if scheme is None and path.startswith("file:/"):  # as Hadoop writes it, with one slash
        return "file"
    return None if scheme is None else str(scheme)


def open_filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL with a scheme, and the path of the URL in it.

    Raises:
        UnsupportedStorage: the scheme is unknown, its backend is not installed (the message names the extra that brings
            it), or the backend does not take the URL.
    """
    scheme = scheme_of(url) or "file"
    backend = _backend(scheme, url)
    try:
        options = dict(backend._get_kwargs_from_urls(url))
        if scheme != "hdfs":  # which takes its options for Hadoop's, and keeps no listings anyway
            options["use_listings_cache"] = False
        return _instance(backend, tuple(sorted(options.items())), os.getpid()), str(backend._strip_protocol(url))
    except Exception as error:  # each backend has errors of its own for what it does not take
        raise unusable(url, error) from error


def unusable(url: str, error: Exception) -> UnsupportedStorage:
    """The error for a URL that its backend does not take."""
    return UnsupportedStorage(f"{url!r} cannot be used as a storage: {error}")


def missing_backend(scheme: str, url: str) -> UnsupportedStorage:
    """The error for a scheme whose backend is not installed."""
    if scheme in _EXTRAS:
        remedy = f"install flinkjob-operator[{_EXTRAS[scheme]}]"
    else:
        remedy = str(known_implementations[scheme].get("err", "install it")).rstrip(".")
    return UnsupportedStorage(f"{url!r}: the backend for {scheme}:// is not installed: {remedy}")


def _backend(scheme: str, url: str) -> Any:
    try:
        if scheme == "hdfs":
            # fsspec itself would take another backend, whose exclusive creation is none.
            from hdfs_native.fsspec import HdfsFileSystem

            return HdfsFileSystem
        return get_filesystem_class(scheme)
    except ImportError:
        raise missing_backend(scheme, url) from None
    except ValueError:
        raise UnsupportedStorage(
            f"{url!r}: {scheme}:// is no scheme that fsspec knows; supported are a local path, file://, hdfs:// and "
            "object stores such as s3://"
        ) from None


@lru_cache(maxsize=64)
def _instance(backend: Any, options: tuple[tuple[str, Any], ...], process: int) -> AbstractFileSystem:
    """One for each process: connections do not survive a fork."""
    return backend(**dict(options), skip_instance_cache=True)
