"""From an attack to a record: what the attacker sees, how it runs, and what the judge measures."""
