"""The configuration: composed, given a type, priced."""
