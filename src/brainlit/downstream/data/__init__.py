"""Speech data sets with labels, each read from the folder in which its authors publish it (data/downstream.md)."""
