exec python3 tests/e2e/units.py
