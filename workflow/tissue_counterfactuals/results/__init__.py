"""From tidy scores to tables, figures and their provenance."""
