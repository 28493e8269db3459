"""What the subcommands of ``gencls`` do. Heavy imports stand inside the functions, so that ``--help`` is quick."""
