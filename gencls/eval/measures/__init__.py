"""What records amount to: tables, curves, intervals and tests."""
