"""The recipe of E-ABS (thesis, chapter 2): its settings and runs, the thesis's numbers, its tables and figures."""
