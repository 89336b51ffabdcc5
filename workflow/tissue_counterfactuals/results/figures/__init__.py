"""One file per published figure or table; each reads tidy tables, never models."""
