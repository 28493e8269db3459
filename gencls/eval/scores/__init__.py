"""How a defense is asked for scores, and what scores say."""
