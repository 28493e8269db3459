"""Tests; a package, so that its helpers are found before a foreign package of the same name."""
