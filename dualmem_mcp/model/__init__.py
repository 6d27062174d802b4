"""Plain values and rules of the domain, without input or output."""
