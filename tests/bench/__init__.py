"""Benches: one module for each, with `main(argv) -> list[Row]`. `python -m tests.bench [NAME ...] [--json]` runs them."""
