"""Micro-costs of our own path by pytest-benchmark: `python -m benchmarks micro`, `make bench`.

Kept apart from the tests: neither the names of these files nor their settings (`pytest.ini` beside this) are theirs.
"""
