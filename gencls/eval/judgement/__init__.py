"""From an attack to a record: the attacker's model, the run, and the judge's measurements."""
