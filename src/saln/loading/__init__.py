"""Batches whose examples were chosen, before or after they are loaded."""
