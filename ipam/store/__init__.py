"""Pools in a relational database.

tables   what is kept, one table per fact
pools    SqlPoolStore: leadership, loading, and one transaction per Changes
instances   instances with interfaces and addresses: the part of a transaction where no address may get two owners
upsert      rows written whole, whether or not they were there
"""

from ipam.store.pools import Database, SqlPoolStore

__all__ = ["Database", "SqlPoolStore"]
