"""Versions of the pool store's tables, one module each in versions/. A released version is never changed."""
