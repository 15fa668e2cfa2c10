"""Raw material in, releases out: the wing that builds."""
