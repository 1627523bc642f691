"""Gateware in Amaranth. Imports nothing else of Exactum, and neither torch nor numpy."""
