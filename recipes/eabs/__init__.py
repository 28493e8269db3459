"""What the recipe of E-ABS (thesis, chapter 2) is made of: its settings, its runs, the thesis's numbers, tables and figures."""
