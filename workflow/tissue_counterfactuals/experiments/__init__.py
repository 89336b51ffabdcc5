"""The experiments of the Celcomen paper: each module is one of them, from slides to tidy tables."""
