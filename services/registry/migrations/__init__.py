"""Versions of the registry's tables, one module each in versions/. A released version is never changed."""
