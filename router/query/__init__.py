"""Asks archives what they have: C-FIND as SCU (PS3.4 annex C)."""
