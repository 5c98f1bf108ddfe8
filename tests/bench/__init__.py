"""Benches: a module each, with `main(argv) -> list[Row]`; `python -m tests.bench [NAME ...] [--json]` runs them."""
