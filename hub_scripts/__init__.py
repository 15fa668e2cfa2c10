"""Releases to the Hub: publish, gate, take down, verify. Filled by later versions."""
