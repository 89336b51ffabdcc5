"""The models, in plain torch."""
