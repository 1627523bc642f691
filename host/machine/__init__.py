"""The driver of the machine (docs/machine.md), whatever bus leads to it."""
