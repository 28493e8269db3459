"""Measures of records: tables, curves, intervals and tests."""
