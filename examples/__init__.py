"""Sources and workflows beside the product."""
