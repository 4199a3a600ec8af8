"""Versions of proxies on disk: published, verified, aliased, held. Server and trainer meet in this folder."""
